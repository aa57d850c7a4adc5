import { appendFile, mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { orThrow } from '../../lib/error.js'
import { openPicture } from '../../processors/image/image.js'
import { openFilm } from '../../processors/video/video.js'
import { type ChatOptions, chat } from '../chat/chat.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { runCommand, type Talk } from './chat-commands.js'
import { filmOf } from './flags/generation-flags.js'

export interface ChatLoop {
  readonly internvl: InternVLCheckpoint
  readonly options: ChatOptions
  /** Shown with the first message. */
  readonly images: readonly string[]
  readonly videos: readonly string[]
  readonly input: NodeJS.ReadableStream
  /** Answers alone. */
  readonly output: NodeJS.WritableStream
  /** Prompts and remarks. */
  readonly remarks: NodeJS.WritableStream
  /** Whether a person sits there: a prompt, editing, Ctrl-C; else each line of the input is a turn. */
  readonly terminal: boolean
  /** Where a person's lines are kept for the arrow keys, from one conversation to the next. */
  readonly historyFile: string
}

const linesKept = 1000
const prompt = '> '

/** Lines of earlier conversations, the last one first, as readline wants them. */
const earlierLines = async (file: string): Promise<string[]> =>
  (await readFile(file, 'utf8').catch(() => '')).split('\n').filter(Boolean).slice(-linesKept).reverse()

const keepLine = async (file: string, line: string): Promise<void> => {
  try {
    await mkdir(dirname(file), { recursive: true })
    await appendFile(file, `${line}\n`, { mode: 0o600 })
  } catch {
    // a conversation goes on where nothing can be kept
  }
}

/** A terminal, and its lines from the first one on: readline forgets those that come before it is iterated. */
const open = async ({ input, remarks, terminal, historyFile }: ChatLoop) => {
  const history = terminal ? await earlierLines(historyFile) : []
  const person = { output: remarks, terminal, history, historySize: linesKept }
  const readline = createInterface({ input, prompt, ...(terminal ? person : {}) })
  return { readline: readline, lines: readline[Symbol.asyncIterator]() }
}

/** Streams an answer, until it ends or is stopped. */
const answer = async (talk: Talk, text: string, { output }: ChatLoop, signal: AbortSignal): Promise<void> => {
  const { images } = talk
  const videos = talk.videos.map(filmOf)
  let begun = false
  try {
    for await (const piece of talk.session.send(text, { images, videos, signal })) {
      output.write(piece)
      begun = true
    }
    begun = true
    talk.images = []
    talk.videos = []
  } finally {
    if (begun) output.write('\n')
  }
}

const isExpected = (error: unknown): error is Error =>
  error instanceof Error && ['InternVLError', 'RangeError', 'ShapeError'].includes(error.name)

/**
 * A conversation, a line a turn, until the input ends. Ctrl-C stops an answer; at the prompt, the second in a row leaves.
 * Whether all lines could be answered.
 */
export const runChat = async (loop: ChatLoop): Promise<boolean> => {
  const { internvl, options, images, videos, remarks, terminal, historyFile } = loop
  const { system: _, ...later } = options // once, at the beginning
  const talk: Talk = { internvl, options: later, images, videos, session: chat(internvl, options), over: false }
  for (const image of images) await orThrow(openPicture(image))
  for (const video of videos) await orThrow(openFilm(filmOf(video)))
  const { readline, lines } = await open(loop)
  const say = (text: string): void => void (text !== '' && remarks.write(`${text}\n`))
  let stopping: AbortController | undefined
  let warned = false
  let well = true

  const turn = async (line: string): Promise<void> => {
    if (line.trim() === '') return
    if (terminal) await keepLine(historyFile, line)
    try {
      if (line.startsWith('/')) return say(await runCommand(talk, line))
      stopping = new AbortController()
      await answer(talk, line, loop, stopping.signal)
    } catch (error) {
      if (!isExpected(error)) throw error
      well = false
      say(error.message)
    } finally {
      stopping = undefined
    }
  }

  readline.on('SIGINT', () => {
    if (stopping) return stopping.abort()
    if (warned) return readline.close()
    warned = true
    readline.write(null, { ctrl: true, name: 'u' }) // what was typed is dropped, as in a shell
    say('\n(Ctrl-C again, Ctrl-D or /exit leaves)')
    readline.prompt()
  })
  try {
    if (terminal) readline.prompt()
    for await (const line of lines) {
      warned = false
      await turn(line)
      if (talk.over) break
      if (terminal) readline.prompt()
    }
    return well
  } finally {
    readline.close()
    talk.session.dispose()
  }
}
