import { streamAnswers } from '../../generation/answer.js'
import { chat } from '../../generation/chat/chat.js'
import { type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import type { Messages } from '../../processors/text/messages.js'
import { leavesNoTensor } from '../laws/generator.js'

const image = { data: new Uint8Array(40 * 60 * 3).fill(90), width: 40, height: 60, channels: 3 as const }
const messages: Messages = [
  {
    role: 'user',
    content: [
      { type: 'image', image },
      { type: 'text', text: 'What is here?' }
    ]
  }
]

describe('streams of answers', () => {
  let internvl: InternVLCheckpoint
  before(async () => {
    internvl = await load()
  })
  after(() => internvl.dispose())

  it('streamAnswers leaks no tensor, left after any step', async () => {
    await leavesNoTensor(() => streamAnswers(internvl, [messages, messages], { maxNewTokens: 4 }))
    await leavesNoTensor(() => streamAnswers(internvl, [messages], { maxNewTokens: 3, numBeams: 2 }))
    await leavesNoTensor(() => streamAnswers(internvl, [messages], { maxNewTokens: 3, signal: new AbortController().signal }))
  })

  it('a turn of a chat leaks no tensor, left after any step', () =>
    leavesNoTensor(async function* () {
      const session = chat(internvl, { maxNewTokens: 3 })
      try {
        return yield* session.send('What is here?', { images: [image] })
      } finally {
        session.dispose()
      }
    }))
})
