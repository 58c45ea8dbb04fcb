// Package parquet writes events as Parquet files, partitioned by table and day, into a folder or a bucket.
//
// Files are large and Deliveries are small, so a Delivery is done when its events stand, synced, in a stage: a file of our own
// on the local disk. A stage that is large or old enough becomes Parquet files and then one manifest that lists them, and
// is removed. Names depend on the stage alone, so that a crash in between writes the same files again, over the old ones.
// What a crash of the server has delivered twice is recognised by its offset: in the stages, and in the files that hold
// offsets from the cursor on.
//
//	table=public.files/date=2026-11-21/files-00000000000000000007-v3.parquet
//	_manifest/00000000000000000007.json
package parquet
