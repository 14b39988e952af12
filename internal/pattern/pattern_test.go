package pattern

import (
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "anything", true},
		{"admin.*", "admin.stop", true},
		{"admin.*", "admin.", true},
		{"admin.*", "admin", false},
		{"*.stop", "admin.stop", true},
		{"*.stop", "admin.stop.not", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"a*a", "a", false},
		{"**", "x", true},
		{"a", "A", false},
	} {
		if got := Matches(tt.pattern, tt.text); got != tt.want {
			t.Errorf("Matches(%q, %q) is %v", tt.pattern, tt.text, got)
		}
	}
	if Matches(strings.Repeat("a*", 1000)+"b", strings.Repeat("a", 100_000)) {
		t.Error("there is no b")
	}
	if !Any([]string{"a", "b*"}, "bc") || Any(nil, "") {
		t.Error("Any")
	}
}
