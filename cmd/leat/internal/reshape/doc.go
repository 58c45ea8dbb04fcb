// Package reshape holds the test of schema changes: random statements about the shape of tables, mixed with
// writes, on each real database, and a subscriber that applies the events and ends equal to the source.
//
//	make test-ddl DDL=2000 SEED=7
package reshape
