"""Reads a topic with Confluent's deserialisers, who ask Leat's own registry for the schemas; prints a line of JSON for each record."""
import base64, json, sys
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2  # noqa: F401: what our files import
from google.protobuf.json_format import MessageToDict

brokers, registry, topic, form, count = sys.argv[1:6]
client = SchemaRegistryClient({"url": registry})


def message(field):
    """The first message of the subject's newest file, as a program would have it from protoc."""
    id = client.get_latest_version(f"{topic}-{field}").schema_id
    text = client.get_schema(id, fmt="serialized").schema_str
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text))
    file.name = field + ".proto"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(file.package + "." + file.message_type[0].name))


consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest"})
consumer.subscribe([topic])
read = {}
seen = 0
while seen < int(count):
    m = consumer.poll(60)
    if m is None:
        sys.exit(f"no record came, after {seen}")
    if m.error():
        continue
    if not read:  # the schemas are there once a record is
        for field in ("key", "value"):
            read[field] = AvroDeserializer(client) if form == "avro" else ProtobufDeserializer(message(field), {"use.deprecated.format": False}, client)
    out = {}
    for field, data in (("key", m.key()), ("value", m.value())):
        v = data and read[field](data, SerializationContext(topic, field))
        out[field] = MessageToDict(v, preserving_proto_field_name=True) if v is not None and form != "avro" else v
    print(json.dumps(out, default=str))
    seen += 1
consumer.close()
