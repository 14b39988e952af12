// Package pattern is how procedures, and callers, are chosen by their names.
package pattern

import (
	"slices"
	"strings"
)

// Any reports whether text is what one of the patterns says.
func Any(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Matches(p, text) })
}

// Matches reports whether text is what a pattern says, in which "*" stands for any characters, or
// none. It takes time in proportion to the product of their lengths, at most.
func Matches(pattern, text string) bool {
	before, rest, star := strings.Cut(pattern, "*")
	if !star {
		return text == pattern
	}
	text, ok := strings.CutPrefix(text, before)
	for ok {
		var part string
		if part, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(text, part)
		}
		_, text, ok = strings.Cut(text, part)
	}
	return false
}
