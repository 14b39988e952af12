package jsonrpc

// Slots are what calls, or batches, have one each of while they are served. Those for which there is
// none wait, in the order in which they came, and without a goroutine: many wait where few may run.
// Whoever has slots guards them.
type slots struct {
	free    int
	waiting waiter // begins the list of those who wait, the oldest first
}

// A waiter waits for a slot.
type waiter struct {
	prev, next *waiter // nil: it does not wait
	start      func()  // to be called when it has waited and has a slot
}

func newSlots(n int) slots { return slots{free: n} }

// enter takes a slot and reports true, or has w wait.
func (s *slots) enter(w *waiter) bool {
	if s.free > 0 {
		s.free--
		return true
	}
	root := &s.waiting
	if root.next == nil {
		root.prev, root.next = root, root
	}
	w.prev, w.next = root.prev, root
	w.prev.next, root.prev = w, w
	return false
}

// leave gives a slot to who has waited longest, whom it returns and who is to be started, or back;
// then it returns nil.
func (s *slots) leave() *waiter {
	w := s.waiting.next
	if w == nil || w == &s.waiting {
		s.free++
		return nil
	}
	s.remove(w)
	return w
}

// remove has w wait no longer, and reports whether it did.
func (s *slots) remove(w *waiter) bool {
	if w.next == nil {
		return false
	}
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next = nil, nil
	return true
}

// forget lets go of all who wait.
func (s *slots) forget() { s.waiting = waiter{} }
