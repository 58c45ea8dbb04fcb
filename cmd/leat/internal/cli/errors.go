package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// Exit codes of the program.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // wrong usage or config
	exitUnreachable = 3 // could not reach the server
)

// failure is an error with the exit code that it means. A nil err: the command has said everything itself.
type failure struct {
	code int
	err  error
	// hint is what to do, on a line of its own.
	hint string
}

func (f *failure) Error() string {
	if f.err == nil {
		return "failed"
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// ExitCode of a command: 0 done, 1 failed, 2 wrong usage or config, 3 could not reach the server.
func ExitCode(err error) int {
	var f *failure
	var list config.Errors
	var one *config.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &list), errors.As(err, &one):
		return exitUsage
	}
	return exitFailed
}

// Report prints an error of Run for people; it ends with what to do where that is known. Findings in a config
// begin with file:line:column so that editors find the place.
func Report(w io.Writer, err error) {
	if err == nil {
		return
	}
	var f *failure
	hint := ""
	if errors.As(err, &f) {
		if f.err == nil {
			return
		}
		hint = f.hint
	}
	var list config.Errors
	var one *config.Error
	text := ""
	switch {
	case errors.As(err, &list):
		text = lines(list.Error())
	case errors.As(err, &one):
		text = lines(one.Error())
	case f != nil && f.code == exitUsage && placed(err.Error()):
		text = lines(err.Error())
	default:
		text = "leat: " + strings.TrimPrefix(lines(err.Error()), "leat ")
	}
	if hint != "" {
		text += "\n" + hint
	}
	fmt.Fprintln(w, text)
}

// lines cleans a text of several lines.
func lines(text string) string {
	out := strings.Split(text, "\n")
	for i, l := range out {
		out[i] = strings.TrimRight(screen.Clean(l), " ")
	}
	return strings.Join(out, "\n")
}

// placed reports whether a text begins with FILE:LINE:COLUMN:
func placed(text string) bool {
	first, _, _ := strings.Cut(text, "\n")
	parts := strings.SplitN(first, ":", 4)
	return len(parts) == 4 && isDigits(parts[1]) && isDigits(parts[2])
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// said is the end of a command that has printed its bad news.
func said(code int) error { return &failure{code: code} }

// usage is an error in how a command was typed.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...),
		"Usage: " + cmd.UseLine() + "\nMore:  " + cmd.CommandPath() + " --help"}
}

// unsupported refuses what a later version will do.
func unsupported(what string) error {
	return &failure{code: exitUsage, err: fmt.Errorf("%s: not supported by this version", what)}
}

// unknownCommand looks for a command that is none, before flags are looked at: the flags of a mistyped
// command are not what is wrong.
func unknownCommand(root *cobra.Command, args []string) error {
	if _, _, err := root.Find(args); err == nil || len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return nil // the shell asks for completions: Cobra adds that command later
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") {
			return wrongCommand(root, arg)
		}
		var f *pflag.Flag
		if name, long := strings.CutPrefix(arg, "--"); long {
			f = root.PersistentFlags().Lookup(name)
		} else if len(arg) == 2 {
			f = root.PersistentFlags().ShorthandLookup(arg[1:])
		}
		if f != nil && f.NoOptDefVal == "" {
			i++ // its value
		}
	}
	return nil
}

func wrongCommand(parent *cobra.Command, arg string) error {
	var words []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			words = append(words, c.Name())
		}
	}
	err := fmt.Errorf("unknown command %q for %s%s", arg, parent.CommandPath(), nearest(arg, words, ""))
	return &failure{exitUsage, err, "More: " + parent.CommandPath() + " --help"}
}

// group makes a command that only holds others refuse what is none of them.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.FParseErrWhitelist.UnknownFlags = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return wrongCommand(cmd, args[0])
		}
		var words []string
		for _, c := range cmd.Commands() {
			words = append(words, c.Name())
		}
		return &failure{exitUsage, fmt.Errorf("%s wants one of: %s", cmd.CommandPath(), strings.Join(words, ", ")),
			"More: " + cmd.CommandPath() + " --help"}
	}
	return cmd
}

// flagError explains what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var wrong *pflag.InvalidValueError
	if errors.As(err, &wrong) {
		return usage(cmd, "%s: --%s: %q is not %s", cmd.CommandPath(), wrong.GetFlag().Name, wrong.GetValue(), flagKind(wrong.GetFlag()))
	}
	if !errors.As(err, &unknown) {
		return usage(cmd, "%s: %w", cmd.CommandPath(), err)
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usage(cmd, "%s has no flag -%s", cmd.CommandPath(), name)
	}
	var words []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			words = append(words, f.Name)
		}
	})
	return usage(cmd, "%s has no flag --%s%s", cmd.CommandPath(), name, nearest(name, words, "--"))
}

// flagKind says what a flag's value is, for people.
func flagKind(f *pflag.Flag) string {
	switch kind := f.Value.Type(); {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number in its range"
	case kind == "bool":
		return "true or false"
	default:
		return "a " + kind
	}
}

// wants checks the number of arguments; names are those of the arguments, in [] what may be left out.
func wants(names ...string) cobra.PositionalArgs {
	need := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			need++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.Contains(names[len(names)-1], "...")
		switch {
		case len(args) < need:
			return usage(cmd, "%s wants %s", cmd.CommandPath(), strings.Join(names[len(args):need], " "))
		case len(args) > len(names) && !many:
			return usage(cmd, "%s has no use for %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// nearest is "; did you mean X?" when a word is near to what was typed.
func nearest(got string, words []string, before string) string {
	best, limit := "", max(1, len(got)/3)
	for _, w := range words {
		d := distance(strings.ToLower(got), strings.ToLower(w))
		if d > limit && len(got) >= 2 && strings.HasPrefix(w, strings.ToLower(got)) {
			d = limit
		}
		if d < limit || d == limit && best == "" {
			best, limit = w, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + before + best + "?"
}

// distance is the edit distance with transpositions of neighbours (optimal string alignment).
func distance(s, t string) int {
	a, b := []rune(s), []rune(t)
	const far = 32
	if len(a) > far || len(b) > far {
		return far
	}
	older, old, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := range a {
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(old[j+1]+1, now[j]+1, old[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], older[j-1]+1)
			}
		}
		older, old, now = old, now, older
	}
	return old[len(b)]
}
