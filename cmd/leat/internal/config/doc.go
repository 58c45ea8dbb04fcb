// Package config reads leat.yaml: one file that describes a whole installation.
//
// The way of a file: the YAML parser gives a tree with positions (yamltree);
// ${NAME} is expanded in its scalars (expand.go); what this version lacks is
// refused (unsupported.go); the tree is decoded into plain structs by their
// tags (decode.go); then rules over several fields are checked (check*.go).
// Every finding is collected and names file, line and column, shows the line
// and the cure. We walk the tree ourselves because the library's decoder stops
// at the first error and names the wrong field in nested ones.
//
// Words: a path is the dotted way to a value, list elements by their number:
// "subscriptions.search.batch.bytes", "tokens.0.roles". A reference is
// ${NAME} or ${NAME:-default}. A value is open while its reference is not
// expanded (Options.NoExpand).
//
// Secrets: no method of a Config, no error and no Change prints one. An
// expanded value is never shown in an error, only its reference; lines of the
// file are shown with what looks like a secret masked.
package config
