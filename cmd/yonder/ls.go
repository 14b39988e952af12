package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

func lsCommand() *cobra.Command {
	var asJSON, all bool
	var timeout time.Duration
	var secure security
	cmd := &cobra.Command{
		Use:   "ls [flags] ADDR",
		Short: "List a server's procedures",
		Long: `Ls lists the procedures of the server at ADDR, host:port, tls://host:port or
unix:///path, with their signatures as a Go client binds them, their documentation, and the fields
of the structs in them.`,
		Example: `  yonder ls 127.0.0.1:1234
  yonder ls --json 127.0.0.1:1234 | jq -r '.[].name'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("ls needs the address of a server and nothing else: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, err := withTimeout(cmd.Context(), cmd, timeout)
			if err != nil {
				return err
			}
			defer cancel()
			client, procs, err := connect(ctx, args[0], nil, &secure)
			if err != nil {
				return err
			}
			defer client.Close()
			if all {
				procs = append(procs, builtins()...)
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				return enc.Encode(procs)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), listing(procs))
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list yonder's own procedures, such as yonder.health, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array, with the signatures in the form of SPEC.md too")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "give up after this `duration`; 0: never")
	secure.flags(cmd.Flags())
	return cmd
}

// listing describes procedures for people.
func listing(procs []yonder.ProcedureInfo) string {
	if len(procs) == 0 {
		return "The server has no procedures.\n"
	}
	const widest = 32 // a longer name has its signature on the next line
	width := 0
	for _, p := range procs {
		if n := utf8.RuneCountInString(p.Name); n <= widest {
			width = max(width, n)
		}
	}
	var b strings.Builder
	var structs []string
	for i, p := range procs {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%-*s", width, p.Name)
		if utf8.RuneCountInString(p.Name) > width {
			fmt.Fprintf(&b, "\n%-*s", width, "")
		}
		fmt.Fprintf(&b, "  %s\n", p.Go)
		for _, line := range wrap(p.Doc, 78-width) {
			fmt.Fprintf(&b, "%-*s  %s\n", width, "", line)
		}
		if sig, err := fn.Parse(p.Signature); err == nil {
			structs = definitions(structs, sig)
		}
	}
	if len(structs) > 0 {
		b.WriteString("\n" + strings.Join(structs, "\n") + "\n")
	}
	return printable(b.String())
}

// wrap breaks text into lines of at most width characters, where there are spaces.
func wrap(text string, width int) []string {
	var lines []string
	for paragraph := range strings.Lines(text) {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
				lines = append(lines, line)
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return lines
}
