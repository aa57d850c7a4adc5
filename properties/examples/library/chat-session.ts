import { chat, load, restoreChat } from '../../../generation/root.js'
import { checkpoint, shapes } from '../demo-files.js'

/** A conversation with history: streamed, saved and continued. */
export const chatAboutImage = async (write: (text: string) => void): Promise<string> => {
  const model = await load(checkpoint)
  const session = chat(model)
  for await (const text of session.send('Describe the image.', { images: [shapes] })) write(text)
  const saved = await session.save()
  session.dispose()

  const later = restoreChat(model, saved)
  const { text } = await later.ask('How many circles are there?') // the image is not encoded again
  later.dispose()
  model.dispose()
  return text
}
