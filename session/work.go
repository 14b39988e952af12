package session

// Before gob decodes the first value of a type it goes through the type's definition, once for
// each Go type that there is to decode into. Of a struct's field that the Go type has not, it goes
// through all slices, arrays and maps behind it, and for the next such field again. So a few KB of
// definitions, a thousand fields with a thousand types behind each, would keep it busy for long.
// The checker counts these steps, as if the Go types had no fields. A program's own types have
// fewer steps than bytes.

// work counts the steps for a message of this type, and what it has in interfaces, when all types
// are defined.
func (c *checker) work(id int64) {
	c.compile(id)
	for held := range c.held {
		c.again(held.id)
	}
}

// again counts the steps for one more Go type that a type is decoded into.
func (c *checker) again(id int64) {
	t := c.types[id]
	if t == nil {
		return
	}
	if t.kind != structKind {
		c.pass(id, c.nextPass())
		return
	}
	t.compiled = true
	for _, id := range t.fields {
		c.step()
		c.pass(id, c.nextPass())
	}
}

// compile counts the steps for a type the first time.
func (c *checker) compile(id int64) {
	if t := c.types[id]; t != nil && !t.compiled {
		c.again(id)
	}
}

// nextPass returns a number of its own.
func (c *checker) nextPass() int {
	c.passes++
	return c.passes
}

// pass counts the steps for a type that is passed over, in a pass that comes by each type once.
func (c *checker) pass(id int64, pass int) {
	t := c.types[id]
	if t == nil || t.passed == pass {
		return
	}
	t.passed = pass
	c.step()
	switch t.kind {
	case structKind:
		c.compile(id)
	case mapKind:
		c.pass(t.key, pass)
		c.pass(t.elem, pass)
	case sliceKind, arrayKind:
		c.pass(t.elem, pass)
	}
}

func (c *checker) step() {
	if c.steps++; c.steps > c.most {
		c.fail("its types take more than %d steps to decode", c.most)
	}
}
