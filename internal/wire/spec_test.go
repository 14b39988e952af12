package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
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
