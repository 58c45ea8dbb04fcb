package mysql

import (
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// Codes of the notices that this source gives.
const (
	codeStatement = "statement"    // changed by a statement, without row events
	codeXA        = "xa"           // changed in a prepared XA transaction
	codeRollback  = "rollback"     // rows of a transaction that was rolled back in part
	codeStructure = "structure"    // a row does not fit the table's shape
	codeType      = "type"         // a column's type is not known
	codeMetadata  = "metadata"     // the shape cannot be had for sure
	codePartial   = "partial_json" // a part of a JSON value instead of the whole
	codeColumns   = "columns"      // the configuration leaves out what is needed
	codeImage     = "row_image"    // an image without columns
	codeRenamed   = "renamed"      // another table took the name
	codePartition = "partition"    // rows came or went with a partition or tablespace
)

const cureStatement = "SET PERSIST binlog_format='ROW' (MariaDB: SET GLOBAL binlog_format='ROW') and reconnect the writers; then " + pipeline.BringRows

// quarantines of this stream. Those of earlier ones ingest keeps.
type quarantines struct {
	tables map[string]string // why: the code
	all    string            // why every table is
}

// quarantine stops reading a wanted table from here on.
func (r *reader) quarantine(schema, name, code, reason, cure string) {
	full := schema + "." + name
	if r.quar.tables[full] != "" || !r.src.tables.match(schema, name, r.srv.fold) {
		return
	}
	if r.quar.tables == nil {
		r.quar.tables = map[string]string{}
	}
	r.quar.tables[full] = code
	if r.tx.open {
		r.leftOut(statement.Name{Schema: schema, Table: name})
	}
	if sh := r.tables.byName[full]; sh != nil {
		sh.wanted = false
	}
	for _, sh := range r.tables.byID { // an id that an older shape still has
		if sh.schema == schema && sh.name == name {
			sh.wanted = false
		}
	}
	r.notice(pipeline.NoticeQuarantined, schema, name, code, reason, cure)
}

// quarantineAll stops reading every table: a statement may have changed any.
func (r *reader) quarantineAll(reason string) {
	r.quar.all = reason
	for _, sh := range r.tables.byName {
		r.quarantine(sh.schema, sh.name, codeStatement, reason, cureStatement)
	}
	for _, t := range r.tables.known {
		r.quarantine(t.Schema, t.Name, codeStatement, reason, cureStatement)
	}
}

// closed reports whether a table's rows stay out while the stream lasts: not where its shape could not be had, which the
// next table map may tell.
func (r *reader) closed(full string) bool {
	code := r.quar.tables[full]
	return code != "" && !pipeline.Notice{Code: code}.OfShape()
}

// known takes back the quarantine of a table whose shape could not be had, and can be now.
func (r *reader) known(schema, name string) {
	full := schema + "." + name
	code := r.quar.tables[full]
	if code == "" {
		return
	}
	delete(r.quar.tables, full)
	r.notice(pipeline.NoticeReleased, schema, name, code, "its shape is known again", "")
	r.gap(schema, name, code, "changes before this place did not enter the log, as it was quarantined")
}

// gap tells that rows of the table came or went without events.
func (r *reader) gap(schema, name, code, reason string) {
	if r.src.tables.match(schema, name, r.srv.fold) {
		r.notice(pipeline.NoticeGap, schema, name, code, reason, pipeline.BringRows)
	}
}

func (r *reader) notice(kind pipeline.NoticeKind, schema, name, code, reason, cure string) {
	position := r.place()
	if r.tx.open {
		position = string(r.appendID(nil))
	}
	n := pipeline.Notice{Kind: kind, Code: code, Table: schemas.Subject(schema, name), Position: position, Reason: reason, Cure: cure, Time: time.Now().UTC()}
	if r.tx.open {
		r.tx.notices = append(r.tx.notices, n)
		return
	}
	r.b.Notices = append(r.b.Notices, n)
}
