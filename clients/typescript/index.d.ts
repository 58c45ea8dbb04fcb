/**
 * Types of what Leat sends, as docs/subscribers.md tells it. `leat schemas typescript SUBSCRIPTION` writes a file that has
 * them together with the rows of your tables; with this package alone rows are of any columns.
 */

/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A float: JSON has no number for three of them. */
export type Float = number | "NaN" | "Infinity" | "-Infinity";

/** An array of the database, nested where it has several dimensions; its own text where its bounds are not from 1 on. */
export type List<T> = Nested<T> | string;
export type Nested<T> = (T | null | Nested<T>)[];

/** What is known of a table: its row, and the columns that identify one (null where nothing does). */
export interface Table {
  row: object;
  key: object | null;
}

/** Tables by their subject: schema.table, or database.table. */
export type Tables = Record<string, { row: Record<string, Json>; key: Record<string, Json> | null }>;

/** A transaction of the source. */
export interface Tx {
  id: string;
  /** From 1. */
  seq: number;
  /** The transaction's last event in the log; a filter may take it from you: see ResolvedEvent. */
  last: boolean;
}

/** A column in the new shape of a table. */
export interface Column {
  name: string;
  /** In the database's words. */
  type: string;
  kind: string;
  nullable: boolean;
  /** The kind of an array's elements. */
  elem?: string;
}

interface Attributes {
  specversion: "1.0";
  /** Stable: the same id is the same content, for ever. */
  id: string;
  source: string;
  /** Of the commit. */
  time: string;
  datacontenttype: "application/json";
  /** The routing key as a JSON array: what order is kept by. "[]" for what is about no row. */
  partitionkey: string;
  /** The offset, 20 digits: text sorts as numbers. Compare only within one source. */
  sequence: string;
}

interface Place {
  /** Null for rows of a snapshot. */
  tx: Tx | null;
  position: string | null;
  /** A copy, of this job. */
  replay?: { job: string };
}

/** Columns in absent were not sent: keep what you have. Without it the row is whole. */
type After<Row> = { after: Row; absent?: undefined } | { after: Partial<Row>; absent: (keyof Row & string)[] };

/** A change of the key comes as a delete and an insert that name each other. */
interface Half<Key> {
  key_change?: true;
  other?: { key: Key; partitionkey: string; id: string };
}

export type Insert<Row, Key> = { op: "insert"; key: Key; before: null } & After<Row> & Half<Key>;
/** before: null, the key, or the row, as the database logs it. */
export type Update<Row, Key> = { op: "update"; key: Key; before: Partial<Row> | null } & After<Row>;
export type Delete<Row, Key> = { op: "delete"; key: Key; before: Partial<Row> | null; after: null } & Half<Key>;
/** A row that was there: apply it as an upsert. */
export type Snapshot<Row, Key> = { op: "snapshot"; key: Key; before: null } & After<Row>;
/** All rows of the table are gone. */
export type Truncate = { op: "truncate"; key: null; before: null; after: null };
/** rewrites: existing rows changed without events. */
export type Schema = { op: "schema"; columns: Column[]; statement?: string; rewrites?: boolean };

type Typed<Subject, Data extends { op: string }> = Data extends { op: infer Op extends string }
  ? { type: `leat.${Op}`; subject: Subject; dataschema: string; data: { table: Subject } & Data & Place }
  : never;

/** An event of one table. */
export type TableEvent<Subject, T extends Table> = Attributes &
  Typed<
    Subject,
    | Insert<T["row"], T["key"]>
    | Update<T["row"], T["key"]>
    | Delete<T["row"], T["key"]>
    | Snapshot<T["row"], T["key"]>
    | Truncate
    | Schema
  >;

/** pg_logical_emit_message. Content that is not UTF-8 is base64, and says so. */
export type MessageEvent = Attributes & {
  type: "leat.message";
  subject?: undefined;
  data: { op: "message"; prefix: string; content: string; encoding?: "base64" } & Place;
};

/** Everything below the offset data.resolved was delivered, or is listed as a dead letter or as skipped. */
export type ResolvedEvent = Attributes & {
  type: "leat.resolved";
  subject?: undefined;
  data: { resolved: string; time: string };
};

/** An event as webhooks, files, Kafka (JSON) and server-sent events have it. New types may come: ignore those. */
export type Event<T extends { [S in keyof T]: Table } = Tables> =
  | { [S in keyof T & string]: TableEvent<S, T[S]> }[keyof T & string]
  | MessageEvent
  | ResolvedEvent;

/** Headers of a webhook, as Node names them. */
export interface WebhookHeaders {
  "content-type": "application/cloudevents+json" | "application/cloudevents-batch+json";
  "webhook-id": string;
  /** Unix seconds of this attempt. */
  "webhook-timestamp": string;
  "webhook-signature": string;
  /** From 1. */
  "delivery-attempt": string;
  /** RFC 3339: stop by then, the event may be sent again. */
  "delivery-deadline": string;
  "delivery-reason": "first" | "retry" | "reclaim" | "redrive" | "replay";
}

/** The answer to a webhook, with a 2xx: what is not named is tried again. */
export interface Results {
  results: { id: string; status: "ok" | "retry" | "fatal" | "defer"; delay?: string; reason?: string }[];
}

/** In the place of a column that the source did not send, with `encoding: debezium`. */
export type Unavailable = "__debezium_unavailable_value";

export interface DebeziumSource {
  version: string;
  connector: "postgresql" | "mysql";
  name: string;
  db: string;
  schema: string;
  table: string;
  snapshot: "true" | "false";
  ts_ms: number;
  ts_us: number;
  position: string;
  sequence: number;
  txId?: string;
}

interface DebeziumEnd {
  source: DebeziumSource;
  ts_ms: number;
  transaction: null;
}

type DebeziumRow<Row> = { [C in keyof Row]: Row[C] | Unavailable };

/** The value of a record with `encoding: debezium`; null is a tombstone. */
export type Debezium<T extends Table = Tables[string]> =
  | null
  | (DebeziumEnd &
      (
        | { op: "c" | "r"; before: null; after: DebeziumRow<T["row"]> }
        | { op: "u"; before: DebeziumRow<T["row"]> | null; after: DebeziumRow<T["row"]> }
        | { op: "d"; before: DebeziumRow<T["row"]> | null; after: null }
        | { op: "t"; before: null; after: null }
        | { op: "m"; message: { prefix: string; content: string } }
        | { op?: undefined; ddl: string }
      ));
