// Yonder serves and calls Go functions from the command line: see yonder --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/yonder-rpc/yonder"
)

func main() {
	// The first signal ends what is running in good order; the next kills the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	started := false
	root := rootCommand()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(hideNumbers(spellFlags(os.Args[1:])))
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = usageError{err.Error(), cmd.CommandPath()}
	}
	os.Exit(report(os.Stderr, err))
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "yonder",
		Short: "Serve and call Go functions across processes",
		Long: `Yonder calls Go functions in other processes. This is its tool:
it shows what a server has, and calls it.`,
		Example: `  yonder demo
  yonder ls 127.0.0.1:1234
  yonder call 127.0.0.1:1234 queryUser 1`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(demoCommand(), lsCommand(), callCommand(), versionCommand())
	return root
}

// noArguments is for commands that take none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument; have %q", cmd.Name(), args[0])
	}
	return nil
}

// Exit statuses besides those of the codes.
const (
	statusFailed = 1
	statusUsage  = 2
	statusCodes  = 10 // is added to a code
)

// usageError says that a command was not given what it needs.
type usageError struct {
	text    string
	command string // whose help explains it; empty: the text says enough
}

func (e usageError) Error() string { return e.text }

// report writes an error for people, and returns the status to exit with.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if u, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(w, "yonder: "+printable(strings.TrimSpace(u.text)))
		if u.command != "" {
			fmt.Fprintf(w, "Run %q for help.\n", u.command+" --help")
		}
		return statusUsage
	}
	if e, ok := errors.AsType[*yonder.Error](err); ok {
		code := yonder.CodeOf(err)
		fmt.Fprintf(w, "yonder: %v: %s\n", code, printable(strings.TrimPrefix(err.Error(), "yonder: ")))
		if e.Details != nil {
			fmt.Fprintf(w, "details: %s\n", printable(jsonText(e.Details)))
		}
		return statusCodes + int(code)
	}
	fmt.Fprintln(w, "yonder: "+printable(err.Error()))
	return statusFailed
}

// printable returns text that came from elsewhere without what could steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// hidden marks arguments that begin as a flag does and are none. No argument of a
// process can have this character.
const hidden = "\x00"

// spellFlags lets who is used to Go's own flags write demo -tls.
func spellFlags(args []string) []string {
	if len(args) == 0 || args[0] != "demo" {
		return args
	}
	out := slices.Clone(args)
	for i, arg := range out {
		if name, _, _ := strings.Cut(arg, "="); name == "-tls" || name == "-tls-cert" || name == "-listen" {
			out[i] = "-" + arg
		}
	}
	return out
}

// hideNumbers hides negative numbers and durations from the flag parser.
func hideNumbers(args []string) []string {
	out := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if len(arg) > 1 && arg[0] == '-' && (arg[1] == '.' || '0' <= arg[1] && arg[1] <= '9') {
			arg = hidden + arg
		}
		out = append(out, arg)
	}
	return out
}
