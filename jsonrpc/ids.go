package jsonrpc

import "hash/maphash"

// An idIndex finds calls by their ids, which are told apart by how they are written: peers send
// thousands of calls, and cancel any of them. Whoever has one guards it.
type idIndex struct {
	first map[uint64]*activeCall // by keyOf; nil: there are none
	most  int                    // how many of them there have been since first was made
}

// sameID is a call's place among those with its key, the youngest of which is the first. An id may
// be used again before its call has ended.
type sameID struct {
	key        uint64
	prev, next *activeCall
	cancelled  bool // and with it all of its id that come after it
}

// seed is a process's own, so that nobody can send ids whose hashes are equal.
var seed = maphash.MakeSeed()

// keptIDs is how many calls a map may have been for that is kept when there are none.
const keptIDs = 256

// keyOf returns the key of an id's calls. Those with a deadline have another, because some
// cancellations are not for them.
func keyOf(id []byte, timed bool) uint64 {
	key := maphash.Bytes(seed, id) &^ 1
	if timed {
		key |= 1
	}
	return key
}

// add adds a call, if it has an id.
func (x *idIndex) add(a *activeCall) {
	if a.id == nil {
		return
	}
	if x.first == nil {
		x.first = make(map[uint64]*activeCall)
	}
	a.same.key = keyOf(a.id, a.timed)
	if a.same.next = x.first[a.same.key]; a.same.next != nil {
		a.same.next.same.prev = a
	}
	x.first[a.same.key] = a
	x.most = max(x.most, len(x.first))
}

// remove removes a call that was added.
func (x *idIndex) remove(a *activeCall) {
	if a.id == nil {
		return
	}
	s := &a.same
	if s.next != nil {
		s.next.same.prev = s.prev
	}
	switch {
	case s.prev != nil:
		s.prev.same.next = s.next
	case s.next != nil:
		x.first[s.key] = s.next
	default:
		delete(x.first, s.key)
		if len(x.first) == 0 && x.most > keptIDs { // a map does not become smaller
			x.first, x.most = nil, 0
		}
	}
}

// cancelling returns the calls of an id that are to be cancelled now, and reports whether there are
// any of that id. late spares those with a deadline.
func (x *idIndex) cancelling(id []byte, late bool) (calls []*activeCall, found bool) {
	if len(id) == 0 || x.first == nil {
		return nil, false
	}
	for _, timed := range []bool{false, true} {
		for a := x.first[keyOf(id, timed)]; a != nil; a = a.same.next {
			if string(a.id) != string(id) {
				continue
			}
			found = true
			if timed && late || a.same.cancelled {
				break
			}
			a.same.cancelled = true
			calls = append(calls, a)
		}
	}
	return calls, found
}
