import { appendFile, mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { isExpectedError, orThrow } from '../../lib/error.js'
import { openImage } from '../../processors/image/image.js'
import { openVideo } from '../../processors/video/video.js'
import { type ChatOptions, chat } from '../chat/chat.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { disableBracketedPaste, enableBracketedPaste, messageOf, withPastedLines } from './bracketed-paste.js'
import { type ChatState, complete, runCommand } from './chat-commands.js'
import { videoSource } from './flags/generation-flags.js'

export interface ChatLoopOptions {
  readonly internvl: InternVLCheckpoint
  readonly options: ChatOptions
  /** Images of the first message. */
  readonly images: readonly string[]
  /** Videos of the first message. */
  readonly videos: readonly string[]
  readonly input: NodeJS.ReadableStream
  /** Stream of the answers alone. */
  readonly output: NodeJS.WritableStream
  /** Stream of prompts and messages. */
  readonly messages: NodeJS.WritableStream
  /** Whether input comes from a terminal, with a prompt, line editing and Ctrl-C. Otherwise each input line is a message. */
  readonly terminal: boolean
  /** Whether prompt, messages and errors have colors. Default: no. */
  readonly colors?: boolean
  /** File of the input history for the arrow keys. */
  readonly historyFile: string
}

const historySize = 1000
const prompt = '> '

const escapeCode = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`
const style = { prompt: escapeCode(32), message: escapeCode(2), error: escapeCode(31) } // green, dim, red

/** Lines of earlier conversations, the latest first, as readline expects them. */
const readHistory = async (file: string): Promise<string[]> =>
  (await readFile(file, 'utf8').catch(() => '')).split('\n').filter(Boolean).slice(-historySize).reverse()

const appendHistory = async (file: string, line: string): Promise<void> => {
  try {
    await mkdir(dirname(file), { recursive: true })
    await appendFile(file, `${line}\n`, { mode: 0o600 })
  } catch {
    // the conversation continues without a history file
  }
}

/** Opens readline and its line iterator at once: readline drops lines that arrive before iteration. */
const openReadline = async ({ input, messages, terminal, historyFile, colors = false }: ChatLoopOptions) => {
  const styledPrompt = colors ? style.prompt(prompt) : prompt
  if (!terminal) {
    const readline = createInterface({ input, prompt: styledPrompt })
    return { readline, lines: readline[Symbol.asyncIterator](), close: () => readline.close() }
  }
  const keys = withPastedLines(input)
  const history = await readHistory(historyFile)
  const editing = { output: messages, terminal, history, historySize, completer: complete }
  const readline = createInterface({ input: keys, prompt: styledPrompt, ...editing })
  messages.write(enableBracketedPaste)
  const close = (): void => {
    readline.close()
    keys.close()
    messages.write(disableBracketedPaste)
  }
  return { readline, lines: readline[Symbol.asyncIterator](), close }
}

/** Shows that the model reads the prompt, from now until the returned function is called. The seconds count while the event loop turns. */
const showReading = ({ messages, terminal, colors = false }: ChatLoopOptions): (() => void) => {
  if (!terminal) return () => {}
  const startTime = performance.now()
  const show = (): void => {
    const seconds = Math.floor((performance.now() - startTime) / 1000)
    const text = seconds === 0 ? 'reading …' : `reading … ${seconds} s`
    messages.write(`\r${colors ? style.message(text) : text}`)
  }
  show()
  const timer = setInterval(show, 1000)
  let isShown = true
  return () => {
    clearInterval(timer)
    if (isShown) messages.write('\r\u001b[K')
    isShown = false
  }
}

/** Streams an answer until the answer ends or is stopped. */
const streamAnswer = async (state: ChatState, text: string, loop: ChatLoopOptions, signal: AbortSignal): Promise<void> => {
  const { output } = loop
  const { images } = state
  const videos = state.videos.map(videoSource)
  const hideReading = showReading(loop)
  let hasOutput = false
  try {
    for await (const piece of state.session.send(text, { images, videos, signal })) {
      hideReading()
      output.write(piece)
      hasOutput = true
    }
    hasOutput = true
    state.images = []
    state.videos = []
  } finally {
    hideReading()
    if (hasOutput) output.write('\n')
  }
}

/**
 * Runs a conversation with one message per line until the input ends. Ctrl-C stops an answer; pressing Ctrl-C twice at the prompt quits.
 * Returns whether all lines were answered.
 */
export const runChatLoop = async (loop: ChatLoopOptions): Promise<boolean> => {
  const { internvl, options, images, videos, messages, terminal, historyFile } = loop
  const { system: _, ...later } = options // set only once, at the beginning
  const state: ChatState = { internvl, options: later, images, videos, session: chat(internvl, options), isOver: false }
  for (const image of images) await orThrow(openImage(image))
  for (const video of videos) await orThrow(openVideo(videoSource(video)))
  const { readline, lines, close } = await openReadline(loop)
  const write = (text: string, styled: (text: string) => string): void =>
    void (text !== '' && messages.write(`${loop.colors ? styled(text) : text}\n`))
  const print = (text: string): void => write(text, style.message)
  let answering: AbortController | undefined
  let warned = false
  let allAnswered = true

  const turn = async (line: string): Promise<void> => {
    if (line.trim() === '') return
    if (terminal) await appendHistory(historyFile, line)
    try {
      if (line.startsWith('/')) return print(await runCommand(state, messageOf(line)))
      answering = new AbortController()
      await streamAnswer(state, messageOf(line), loop, answering.signal)
    } catch (error) {
      if (!isExpectedError(error)) throw error
      allAnswered = false
      write(error.message, style.error)
    } finally {
      answering = undefined
    }
  }

  readline.on('SIGINT', () => {
    if (answering) return answering.abort()
    if (warned) return readline.close()
    warned = true
    readline.write(null, { ctrl: true, name: 'u' }) // clears the typed text, as a shell does
    print('\n(press Ctrl-C again, or Ctrl-D, or type /exit to quit)')
    readline.prompt()
  })
  try {
    if (terminal) readline.prompt()
    for await (const line of lines) {
      warned = false
      await turn(line)
      if (state.isOver) break
      if (terminal) readline.prompt()
    }
    return allAnswered
  } finally {
    close()
    state.session.dispose()
  }
}
