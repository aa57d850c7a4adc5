import { type Grounding, parseGrounding } from '../../grounding.js'

/** An image or video that a question shows. `url` is a data URL, `preview` an address that the browser shows. */
export interface Medium {
  readonly id: number
  readonly kind: 'image' | 'video'
  readonly name: string
  readonly url: string
  readonly preview: string
}

export interface TokenChoice {
  readonly token: string
  readonly logprob: number
}

/** A token of an answer with the most probable tokens at its position. */
export interface AnswerToken extends TokenChoice {
  readonly top_logprobs: readonly TokenChoice[]
}

/** Token counts of a request, from the last chunk of its stream. */
export interface ChunkUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly prompt_tokens_details: { readonly image_tokens: number; readonly cached_tokens: number; readonly tiles: number }
}

/** A chunk of a streamed answer. */
export interface ChatChunk {
  readonly choices: readonly {
    readonly delta: { readonly content?: string }
    readonly logprobs: { readonly content: readonly AnswerToken[] } | null
    readonly finish_reason: string | null
  }[]
  readonly usage?: ChunkUsage | null
  readonly error?: { readonly message: string }
}

/** An answer so far. Times are in milliseconds. */
export interface Answer {
  readonly status: 'waiting' | 'streaming' | 'finished' | 'stopped' | 'failed'
  readonly text: string
  /** The text with the tags `<ref>` and `<box>`, which are special tokens and therefore missing in `text`. */
  readonly grounded: string
  readonly tokens: readonly AnswerToken[]
  readonly finishReason: string | undefined
  readonly usage: ChunkUsage | undefined
  readonly error: string | undefined
  readonly sentAt: number
  readonly firstAt: number | undefined
  readonly lastAt: number | undefined
}

/** A question with its images and videos, and its answer. */
export interface Exchange {
  readonly id: number
  readonly question: string
  readonly media: readonly Medium[]
  readonly answer: Answer
}

/** Settings of a request; those left undefined are the model's. */
export interface ChatSettings {
  readonly system: string
  readonly maxTokens: number | undefined
  readonly temperature: number | undefined
  readonly seed: number | undefined
  readonly maxPatches: number | undefined
  readonly numFrames: number | undefined
}

export const emptyAnswer = (now: number): Answer => ({
  status: 'waiting',
  text: '',
  grounded: '',
  tokens: [],
  finishReason: undefined,
  usage: undefined,
  error: undefined,
  sentAt: now,
  firstAt: undefined,
  lastAt: undefined
})

const groundingTag = /^<\/?(ref|box)>$/

/** The answer after one more chunk, which arrived at `now`. */
export const withChunk = (answer: Answer, { choices: [choice], usage, error }: ChatChunk, now: number): Answer => {
  if (error) return { ...answer, status: 'failed', error: error.message }
  const counted = usage ? { ...answer, usage } : answer
  if (!choice) return counted
  const tokens = choice.logprobs?.content ?? []
  const content = choice.delta.content ?? ''
  const tags = tokens.map(({ token }) => token).filter((token) => groundingTag.test(token))
  const times = tokens.length > 0 ? { status: 'streaming' as const, firstAt: counted.firstAt ?? now, lastAt: now } : {}
  return {
    ...counted,
    ...times,
    text: counted.text + content,
    grounded: counted.grounded + content + tags.join(''),
    tokens: [...counted.tokens, ...tokens],
    finishReason: choice.finish_reason ?? counted.finishReason
  }
}

/** The answer at the end of its stream; an answer without a finish reason broke off. */
export const atEnd = (answer: Answer): Answer => {
  if (!isOpen(answer)) return answer
  return answer.finishReason === undefined
    ? { ...answer, status: 'failed', error: 'The answer broke off: the server ended the connection.' }
    : { ...answer, status: 'finished' }
}

/** Whether an answer is still being written. */
export const isOpen = ({ status }: Answer): boolean => status === 'waiting' || status === 'streaming'

/** Tokens a second after the first one; undefined before the second. */
export const tokensPerSecond = ({ tokens, firstAt, lastAt }: Answer): number | undefined =>
  firstAt === undefined || lastAt === undefined || lastAt <= firstAt
    ? undefined
    : ((tokens.length - 1) * 1000) / (lastAt - firstAt)

const mediaPart = ({ kind, url }: Medium) =>
  kind === 'image' ? { type: 'image_url', image_url: { url } } : { type: 'video_url', video_url: { url } }

/** A user's message of a question. */
export const questionMessage = ({ media, question }: Pick<Exchange, 'media' | 'question'>) => ({
  role: 'user',
  content: media.length === 0 ? question : [...media.map(mediaPart), { type: 'text', text: question }]
})

const isAnswered = ({ answer: { status, text } }: Exchange): boolean =>
  status === 'finished' || (status === 'stopped' && text !== '')

/** The messages before the last exchange's answer, and the media they show; earlier exchanges without an answer are left out. */
export const promptOf = (exchanges: readonly Exchange[], { system }: Pick<ChatSettings, 'system'>) => {
  const last = exchanges.at(-1)!
  const earlier = exchanges.slice(0, -1).filter(isAnswered)
  const turns = earlier.flatMap((exchange) => [questionMessage(exchange), { role: 'assistant', content: exchange.answer.text }])
  return {
    messages: [...(system.trim() === '' ? [] : [{ role: 'system', content: system }]), ...turns, questionMessage(last)],
    media: [...earlier, last].flatMap(({ media }) => media)
  }
}

/** The body of the request that answers the last exchange. */
export const chatBody = (exchanges: readonly Exchange[], settings: ChatSettings) => {
  const { maxTokens, temperature, seed, maxPatches, numFrames } = settings
  return {
    messages: promptOf(exchanges, settings).messages,
    stream: true,
    stream_options: { include_usage: true },
    logprobs: true,
    top_logprobs: 5,
    ...(maxTokens === undefined ? {} : { max_completion_tokens: maxTokens }),
    ...(temperature === undefined ? {} : { temperature }),
    ...(seed === undefined ? {} : { seed }),
    ...(maxPatches === undefined ? {} : { max_patches: maxPatches }),
    ...(numFrames === undefined ? {} : { num_frames: numFrames })
  }
}

/** The groundings of the last answer that has some and is about this image: no other image was shown in between. */
export const groundingsFor = (exchanges: readonly Exchange[], mediumId: number): readonly Grounding[] => {
  let shown: readonly Medium[] = []
  let found: readonly Grounding[] = []
  for (const { media, answer } of exchanges) {
    if (media.length > 0) shown = media
    if (!shown.some(({ id }) => id === mediumId)) continue
    const { groundings } = parseGrounding(answer.grounded)
    if (groundings.length > 0) found = groundings
  }
  return found
}
