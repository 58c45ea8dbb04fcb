"""What OpenSearch's own client finds in an index: search.py URL INDEX."""

import json
import sys

from opensearchpy import OpenSearch, helpers

url, index = sys.argv[1:]
client = OpenSearch(url)
client.indices.refresh(index=index)
rows = {int(hit["_id"]): hit["_source"]["n"] for hit in helpers.scan(client, index=index, size=500)}
types = {}
for mapping in client.indices.get_mapping(index=index).values():
    for name, field in mapping["mappings"]["properties"].items():
        types[name] = field.get("type", "object")
        types |= {f"{name}.{sub}": f["type"] for sub, f in field.get("fields", {}).items()}
found = client.search(index=index, body={"query": {"match": {"path": "changed"}}, "track_total_hits": True})["hits"]["total"]["value"]
json.dump({"rows": rows, "types": types, "found": found}, sys.stdout)
