package rpc_test

import (
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// TestAPI checks that every exported name of the standard packages is here, with the same
// type, and nothing is missing from a method set or a struct.
func TestAPI(t *testing.T) {
	for _, pkg := range []string{"net/rpc", "net/rpc/jsonrpc"} {
		t.Run(pkg, func(t *testing.T) {
			want, have := declarations(t, pkg), declarations(t, "github.com/yonder-rpc/yonder/"+pkg)
			if len(want) < 5 {
				t.Fatalf("only %d declarations were found: %q", len(want), want)
			}
			for _, line := range want {
				if !slices.Contains(have, line) {
					t.Errorf("missing: %s", line)
				}
			}
		})
	}
}

// TestComparable has values of structs be keys of maps, as the standard package's can be.
func TestComparable(t *testing.T) {
	for _, s := range []reflect.Type{reflect.TypeFor[rpc.Call](), reflect.TypeFor[rpc.Request](), reflect.TypeFor[rpc.Response]()} {
		if !s.Comparable() {
			t.Errorf("%v cannot be compared", s)
		}
	}
}

// declarations returns a line for each exported constant, variable, function, method, type,
// field and interface method of a package.
func declarations(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "doc", "-all", pkg).Output()
	if err != nil {
		t.Skipf("go doc -all %s: %v", pkg, err)
	}
	comment := regexp.MustCompile(`\s*//.*`)
	value := regexp.MustCompile(`^(var \w+) =.*`)
	receiver := regexp.MustCompile(`^func \(\w+ `)
	var lines []string
	within := "" // the declaration that the line is a part of
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "    ") {
			continue // a comment
		}
		line = strings.Join(strings.Fields(comment.ReplaceAllString(line, "")), " ")
		switch {
		case strings.HasPrefix(line, "type ") && strings.HasSuffix(line, "{"), line == "const (":
			within = line
		case line == "}" || line == ")":
			within = ""
		case within != "" && line != "":
			lines = append(lines, within+" "+line)
		case strings.HasPrefix(line, "func "), strings.HasPrefix(line, "type "), strings.HasPrefix(line, "var "):
			lines = append(lines, receiver.ReplaceAllString(value.ReplaceAllString(line, "$1"), "func ("))
		}
	}
	return lines
}
