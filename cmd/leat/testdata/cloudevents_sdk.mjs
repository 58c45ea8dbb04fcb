// What the CloudEvents SDK for JavaScript makes of the events of a file: a line of JSON for each.
import { readFileSync } from "node:fs";
import { HTTP } from "cloudevents";

for (const body of readFileSync(process.argv[2], "utf8").trim().split("\n")) {
  const e = HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body });
  e.validate();
  const text = [e.id, e.type, e.source, e.subject ?? null, Math.trunc(Date.parse(e.time)), e.dataschema ?? null, e.partitionkey, e.sequence, e.data];
  console.log(JSON.stringify(text));
}
