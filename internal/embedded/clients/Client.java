import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

/** Sends to im.inbound, reads im.rejected in a group of each protocol, and is refused what is not for others. */
public class Client {
  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    try (Producer<String, String> producer = new KafkaProducer<>(p, new StringSerializer(), new StringSerializer())) {
      System.out.println("sent " + producer.send(new ProducerRecord<>("im.inbound", 0, "java", "hello")).get().offset());
      try {
        producer.send(new ProducerRecord<>("im.messages", 0, "java", "hello")).get();
        System.out.println("WROTE im.messages");
      } catch (Exception e) {
        System.out.println("refused " + e.getCause().getClass().getSimpleName());
      }
    }
    for (String protocol : List.of("classic", "consumer")) {
      Properties c = new Properties();
      c.put("bootstrap.servers", args[0]);
      c.put("group.id", "java-" + protocol);
      c.put("group.protocol", protocol);
      c.put("auto.offset.reset", "earliest");
      try (Consumer<String, String> consumer = new KafkaConsumer<>(c, new StringDeserializer(), new StringDeserializer())) {
        consumer.subscribe(List.of("im.rejected"));
        int n = 0;
        for (int i = 0; i < 40 && n == 0; i++) n += consumer.poll(Duration.ofMillis(500)).count();
        consumer.commitSync();
        System.out.println(protocol + " read " + n);
      }
    }
    try (Admin admin = Admin.create(p)) {
      try {
        admin.deleteTopics(List.of("im.messages")).all().get();
        System.out.println("DELETED");
      } catch (Exception e) {
        System.out.println("refused " + e.getCause().getClass().getSimpleName());
      }
      System.out.println("topics " + new TreeSet<>(admin.listTopics().names().get()));
    }
  }
}
