"""What the CloudEvents SDK for Python makes of the events of a file: a line of JSON for each."""

import json
import sys

from cloudevents.core.formats.json import JSONFormat

with open(sys.argv[1], "rb") as f:
    for line in f:
        e = JSONFormat().read(None, line)
        assert e.get_datacontenttype() == "application/json"
        print(json.dumps([e.get_id(), e.get_type(), e.get_source(), e.get_subject(), int(e.get_time().timestamp() * 1000), e.get_dataschema(),
                          e.get_extension("partitionkey"), e.get_extension("sequence"), e.get_data()]))
