import { createEngine } from '../../../generation/root.js'
import { checkpoint, circle, shapes } from '../demo-files.js'

const question = (text: string, path: string) => ({
  messages: [{ role: 'user', content: [{ type: 'image', path } as const, { type: 'text', text } as const] } as const]
})

/** Many requests at once: the model runs in a process of its own, so that this one stays free. */
export const answerManyClients = async (write: (text: string) => void) => {
  const engine = await createEngine(checkpoint, { maxBatch: 8, maxQueue: 32 })
  const streamed = engine.submit(question('Describe the image.', shapes))
  const color = engine.submit(question('What color is the background?', circle))
  const stopped = engine.submit({ ...question('Describe the image.', shapes), options: { maxNewTokens: 1000 } })

  for await (const event of streamed) if (event.type === 'token') write(event.text)
  stopped.abort() // its place in the batch is free for the next request
  const { choices, usage } = await color.result()

  const { requests } = engine.stats()
  await engine.close()
  return { color: choices[0]!.text, imageTokens: usage.prompt.image, accepted: requests.accepted }
}
