// Sends to im.inbound and reads im.messages and im.rejected in a group.
const { Kafka, logLevel } = require('kafkajs')
const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR })
const main = async () => {
  const producer = kafka.producer()
  await producer.connect()
  const [sent] = await producer.send({ topic: 'im.inbound', messages: [{ key: 'js', value: 'hello', partition: 0 }] })
  console.log('sent', sent.baseOffset)
  await producer.send({ topic: 'im.messages', messages: [{ key: 'js', value: 'hello' }] }).then(() => console.log('WROTE'), e => console.log('refused', e.type))
  await producer.disconnect()
  const consumer = kafka.consumer({ groupId: 'js' })
  await consumer.connect()
  await consumer.subscribe({ topics: ['im.rejected', 'im.messages'], fromBeginning: true })
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('nothing was read')), 30000)
    consumer.on(consumer.events.CRASH, e => reject(e.payload.error))
    const read = {}
    consumer.run({ eachMessage: async ({ topic, message }) => {
      read[topic] = message.offset
      if (Object.keys(read).length < 2) return
      for (const topic of Object.keys(read).sort()) console.log('read', topic, read[topic])
      resolve()
    } })
  })
  await consumer.disconnect()
}
main().then(() => process.exit(0), e => { console.error(e); process.exit(1) })
