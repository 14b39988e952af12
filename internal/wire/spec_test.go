package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const specPath = "../../SPEC.md"

// specBlock is a block of SPEC.md that a comment says is a wire script.
var specBlock = regexp.MustCompile("(?s)<!-- (testdata/[^ ]*) -->\n```\n(.*?)```\n")

// TestSpec holds the examples in SPEC.md to the wire scripts, and has it show all of
// them. With -update it copies the scripts to where they belong.
func TestSpec(t *testing.T) {
	old, err := os.ReadFile(specPath)
	if err != nil {
		t.Fatal(err)
	}
	scripts := make(map[string]string) // those that are not shown yet
	for _, path := range scriptPaths(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Not the file itself: TestScripts may be about to rewrite it.
		_, script, err := readScript(string(text))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		scripts[filepath.ToSlash(path)] = script
	}
	text := specBlock.ReplaceAllStringFunc(string(old), func(block string) string {
		path := specBlock.FindStringSubmatch(block)[1]
		script, ok := scripts[path]
		if !ok {
			t.Errorf("SPEC.md shows %s, which does not exist or is shown before", path)
			return block
		}
		delete(scripts, path)
		return fmt.Sprintf("<!-- %s -->\n```\n%s```\n", path, script)
	})
	for path := range scripts {
		t.Errorf("SPEC.md does not show %s", path)
	}
	if *update {
		if err := os.WriteFile(specPath, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(text, string(old)); diff != "" {
		t.Errorf("the examples are not what testdata has, -want +got (copy them with -update):\n%s", diff)
	}
}

// TestSpecTables holds the tables of frames and flags in SPEC.md to the code.
func TestSpecTables(t *testing.T) {
	spec, err := os.ReadFile(specPath)
	if err != nil {
		t.Fatal(err)
	}
	flags := func(typ Type) (names []string) {
		for i, name := range flagNames(typ) {
			if allowed[typ]&(1<<i) != 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	list := func(cell string) (names []string) {
		if cell = strings.TrimSpace(cell); cell != "" {
			names = strings.Split(cell, ", ")
		}
		slices.Sort(names)
		return names
	}

	next := Hello
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| ([A-Z]+) \| (0|call|number|call, or 0) \|([^|]*)\|`).FindAllStringSubmatch(string(spec), -1) {
		if row[1] != strconv.Itoa(int(next)) || row[2] != next.String() {
			t.Fatalf("the table of frames has type %s, %s, where %d, %v is expected", row[1], row[2], next, next)
		}
		if diff := cmp.Diff(flags(next), list(row[4])); diff != "" {
			t.Errorf("flags of %v, -code +SPEC.md:\n%s", next, diff)
		}
		_, _, err := ParseHeader(AppendHeader(nil, Header{Type: next, ID: 1}, 0))
		if zero := row[3] == "0"; zero != (err != nil) {
			t.Errorf("the id of %v is %s in SPEC.md, and with id 1 the error is %v", next, row[3], err)
		}
		next++
	}
	if next != lastType+1 {
		t.Errorf("the table of frames ends before %v", next)
	}

	types := make(map[string][]string) // by flag and bit
	for typ := Hello; typ <= lastType; typ++ {
		for i, name := range flagNames(typ) {
			if allowed[typ]&(1<<i) != 0 {
				key := fmt.Sprintf("%s %02x", name, 1<<i)
				types[key] = append(types[key], typ.String())
			}
		}
	}
	key := ""
	got := make(map[string][]string)
	for _, row := range regexp.MustCompile("(?m)^\\|(?: ([A-Z]\\w+) | )\\|(?: `([0-9a-f]{2})` | )\\| ([A-Z]+(?:, [A-Z]+)*) \\|").FindAllStringSubmatch(string(spec), -1) {
		if row[1] != "" {
			key = row[1] + " " + row[2]
		}
		got[key] = append(got[key], strings.Split(row[3], ", ")...)
	}
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(types, got, sorted); diff != "" {
		t.Errorf("the flags and the types that have them, -code +SPEC.md:\n%s", diff)
	}
}
