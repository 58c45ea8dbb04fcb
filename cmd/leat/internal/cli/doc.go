// Package cli is the command line of Leat: what each command asks, where it asks it, and how the answer
// is printed.
//
// A command talks to a running server over the Admin service (status, tail, seek …), or reads leat.yaml and
// the data folder itself (init, check, config, log), or starts something that [Deps] brings (run, demo).
// Commands return errors; [ExitCode] says what becomes of them and [Report] prints them. Nothing here
// ends the process or handles signals: main does.
//
// The commands stand in packages by what they are about: install (the file and the server), status, events, logs,
// parks, replays, operate. Below them lies shell (flags of all commands, the file, the connection), below that fault
// (errors and what was typed) and screen (tables, sizes, colours).
//
// Output: what was asked for goes to stdout, everything else to stderr. What others wrote (names,
// reasons, rows) is cleaned before it reaches a terminal; no secret is printed by any command.
package cli
