"""Reads topics with Confluent's deserialisers, who ask a registry for the schemas; prints a line of JSON for each record.

Arguments: BROKERS REGISTRY FOLDER TOPIC:FORM:COUNT... The folder may have TOPIC-key and TOPIC-value, the descriptors that
protoc made of their files, for a registry that gives none: then it is not asked for the writer's either."""
import base64, datetime, decimal, json, os, sys, uuid
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2  # noqa: F401: what our files import
from google.protobuf.json_format import MessageToDict

brokers, registry, folder = sys.argv[1:4]
client = SchemaRegistryClient({"url": registry})


def message(topic, field):
    """The first message of the subject's newest file, as a program would have it from protoc; and whom to ask for more."""
    made = os.path.join(folder, f"{topic}-{field}")
    if os.path.exists(made):
        return first(topic, field, open(made).read()), None
    id = client.get_latest_version(f"{topic}-{field}").schema_id
    text = client.get_schema(id, fmt="serialized").schema_str
    return first(topic, field, text), client


def first(topic, field, text):
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text))
    file.name = f"{topic}-{field}.proto"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(file.package + "." + file.message_type[0].name))


def deserialiser(topic, form, field):
    if form == "avro":
        return AvroDeserializer(client)
    if form == "json_schema":
        return JSONDeserializer(None, schema_registry_client=client)  # which holds what it reads against the schema
    kind, ask = message(topic, field)
    return ProtobufDeserializer(kind, {"use.deprecated.format": False}, ask)


def plain(v):
    """What JSON has no form for."""
    if isinstance(v, bytes):
        return base64.b64encode(v).decode()
    if isinstance(v, (datetime.datetime, datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, (decimal.Decimal, uuid.UUID)):
        return str(v)
    raise TypeError(type(v))


for arg in sys.argv[4:]:
    topic, form, count = arg.rsplit(":", 2)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    read = {}
    seen = 0
    while seen < int(count):
        m = consumer.poll(60)
        if m is None:
            sys.exit(f"{topic}: no record came, after {seen}")
        if m.error():
            continue
        if not read:  # the schemas are there once a record is
            read = {field: deserialiser(topic, form, field) for field in ("key", "value")}
        out = {"topic": topic}
        for field, data in (("key", m.key()), ("value", m.value())):
            v = data and read[field](data, SerializationContext(topic, field))
            out[field] = MessageToDict(v, preserving_proto_field_name=True) if v is not None and form == "protobuf" else v
        if form == "json_schema" and out["value"]:
            out["value"] = out["value"]["data"]
        print(json.dumps(out, default=plain))
        seen += 1
    consumer.close()
