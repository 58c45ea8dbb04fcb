package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
)

// YesFlag is --yes of commands that ask before they do what cannot be undone.
func YesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

// Confirm asks on the terminal; word is what must be typed, empty for y. Without a terminal there is nobody to
// ask: refused.
func (a *App) Confirm(ctx context.Context, yes bool, question, word string) error {
	if yes {
		return nil
	}
	nobody := fault.New(fault.WrongUsage, errors.New("nobody can be asked: this is no terminal"), "Give --yes if you are sure.")
	if !term.IsTerminal(int(a.Stdin.Fd())) {
		return nobody
	}
	shown := a.Err
	if !shown.Terminal { // stderr goes elsewhere, but somebody sits there
		tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
		if err != nil {
			return nobody
		}
		defer tty.Close()
		shown = screen.New(tty, a.Env)
	}
	if word == "" {
		shown.Printf("%s [y/N] ", question)
	} else {
		shown.Printf("%s\nType %s to go on: ", question, word)
	}
	answer := make(chan string, 1)
	go func() { // a read of a terminal cannot be interrupted: it ends with the process
		line, err := bufio.NewReader(a.Stdin).ReadString('\n')
		if err != nil {
			line = ""
		}
		answer <- strings.TrimSpace(line)
	}()
	select {
	case got := <-answer:
		if got == word && word != "" || word == "" && (strings.EqualFold(got, "y") || strings.EqualFold(got, "yes")) {
			return nil
		}
	case <-ctx.Done():
		shown.Printf("\n")
	}
	return fmt.Errorf("not confirmed: nothing was changed")
}
