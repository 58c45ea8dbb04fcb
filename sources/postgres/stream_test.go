package postgres

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

func TestInsertUpdateDelete(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create table files (id bigint primary key, path text, size int)`)
		r := d.open(d.source(), pipeline.Position{})
		d.exec(
			`insert into files values (1, 'a', 10), (2, null, 20)`,
			`update files set path = 'b' where id = 1`,
			`update files set id = 3 where id = 2`,
			`delete from files where id = 1`,
		)
		r.want(
			"insert public.files - {id=1 path=a size=10}",
			"insert public.files - {id=2 path=NULL size=20}",
			"update public.files - {id=1 path=b size=10}",
			"update public.files {id=2} {id=3 path=NULL size=20}",
			"delete public.files {id=1} -",
		)
	})
}
