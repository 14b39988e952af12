package resilience

// Buckets returns how many there are.
func Buckets(r *Rates) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.buckets)
}
