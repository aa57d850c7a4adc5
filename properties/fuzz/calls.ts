import { type AnswerOptions, type Answers, answer } from '../../generation/answer.js'
import type { InternVLCheckpoint } from '../../generation/checkpoint/load.js'
import type { RawImage } from '../../processors/image/image.js'
import type { Messages } from '../../processors/text/messages.js'
import { refuseNaN } from './verdict.js'

/** An image of 40 x 30 pixels. */
export const image: RawImage = {
  data: Uint8Array.from({ length: 3600 }, (_, i) => (i * 7) % 256),
  width: 40,
  height: 30,
  channels: 3
}

export const question: Messages = [
  {
    role: 'user',
    content: [
      { type: 'image', image },
      { type: 'text', text: 'What is this?' }
    ]
  }
]

/** Three tokens of an answer about an image. Throws a finding where a log-probability is NaN. */
export const checkedAnswer = async (
  internvl: InternVLCheckpoint,
  messages: Messages = question,
  options: AnswerOptions = {}
): Promise<Answers> => {
  const answers = await answer(internvl, [messages], { maxNewTokens: 3, outputLogprobs: true, ...options })
  refuseNaN('log-probabilities', (answers.result.logprobs ?? []).flat())
  return answers
}
