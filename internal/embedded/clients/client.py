"""Sends to im.inbound and reads im.messages and im.rejected in a group."""
import sys
from kafka import KafkaConsumer, KafkaProducer

producer = KafkaProducer(bootstrap_servers=sys.argv[1])
print("sent", producer.send("im.inbound", b"hello", b"py", partition=0).get(30).offset)
try:
    producer.send("im.messages", b"hello", b"py").get(30)
    print("WROTE")
except Exception as e:
    print("refused", type(e).__name__)
consumer = KafkaConsumer("im.messages", "im.rejected", bootstrap_servers=sys.argv[1], group_id="py", auto_offset_reset="earliest", consumer_timeout_ms=30000)
read = {}
for record in consumer:
    read[record.topic] = record.offset
    if len(read) == 2:
        for topic in sorted(read):
            print("read", topic, read[topic])
        break
else:
    sys.exit("nothing was read")
consumer.close()
