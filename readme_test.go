package yonder_test

import (
	"os"
	"strings"
	"testing"
)

// The README's code is taken from the examples, line by line.
func TestReadme(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	have := "\n" + unindent(string(source))
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```go\n")[1:]
		if len(blocks) < 10 {
			t.Errorf("%s has %d blocks of Go", name, len(blocks))
		}
		for _, block := range blocks[1:] { // the first is the outline of a program
			code, _, _ := strings.Cut(block, "```")
			if !strings.Contains(have, "\n"+unindent(code)) {
				t.Errorf("%s: this is not in example_test.go:\n%s", name, code)
			}
		}
	}
}

// unindent removes the indentation of every line.
func unindent(code string) string {
	lines := strings.Split(code, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimLeft(line, "\t")
	}
	return strings.Join(lines, "\n")
}
