package rpc_test

import (
	"os"
	"strings"
	"testing"
)

// TestMigration checks that the code of docs/migration.md is from example_test.go.
func TestMigration(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	have := "\n" + unindent(string(source))
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 6 {
		t.Errorf("the page has %d blocks of Go", len(blocks))
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		if !strings.Contains(have, "\n"+unindent(code)) {
			t.Errorf("this is not in example_test.go:\n%s", code)
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
