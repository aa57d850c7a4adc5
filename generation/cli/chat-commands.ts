import { readFile, writeFile } from 'node:fs/promises'
import { InternVLError, issue, orThrow } from '../../lib/error.js'
import { openImage } from '../../processors/image/image.js'
import { openVideo } from '../../processors/video/video.js'
import { type ChatOptions, type ChatSession, chat, restoreChat } from '../chat/chat.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { videoSource } from './flags/generation-flags.js'
import { completePath, typedPath } from './typed-path.js'

/** State of a conversation on the command line: the session, and the images and videos of the next message. Only commands change it. */
export interface ChatState {
  readonly internvl: InternVLCheckpoint
  readonly options: ChatOptions
  session: ChatSession
  images: readonly string[]
  videos: readonly string[]
  isOver: boolean
}

interface ChatCommand {
  readonly description: string
  /** Name of the required argument. */
  readonly argument?: string
  /** Runs the command and returns the text to print. */
  readonly run: (state: ChatState, argument: string) => string | Promise<string>
}

const refuse = (message: string): never => {
  throw new InternVLError([issue('ChatCommand', message)])
}

const orRefuse = async <A>(file: string, action: string, run: () => Promise<A>): Promise<A> => {
  try {
    return await run()
  } catch (error) {
    return refuse(`${file}: cannot be ${action} (${(error as Error).message}).`)
  }
}

const replaceSession = (state: ChatState, session: ChatSession): void => {
  state.session.dispose()
  state.session = session
}

const countAnswers = ({ session }: ChatState): string => {
  const turns = session.history.filter(({ role }) => role === 'assistant').length
  return turns === 1 ? '1 answer' : `${turns} answers`
}

/** Commands of the chat, by the name after the slash. */
export const commands: Readonly<Record<string, ChatCommand>> = {
  image: {
    description: 'add an image file or http(s) URL to the next message',
    argument: 'PATH',
    run: async (state, typed) => {
      const path = typedPath(typed)
      const { width, height } = await orThrow(openImage(path))
      state.images = [...state.images, path]
      return `${path}: ${width} x ${height} pixels, added to the next message`
    }
  },
  video: {
    description: 'add a video file, or a folder of frames, to the next message',
    argument: 'PATH',
    run: async (state, typed) => {
      const path = typedPath(typed)
      const { totalNumFrames } = await orThrow(openVideo(videoSource(path)))
      state.videos = [...state.videos, path]
      return `${path}: ${totalNumFrames} frames, added to the next message`
    }
  },
  system: {
    description: 'set the system message and keep the conversation',
    argument: 'TEXT',
    run: (state, text) => {
      const rest = state.session.history.filter(({ role }) => role !== 'system')
      replaceSession(state, chat(state.internvl, { ...state.options, history: [{ role: 'system', content: text }, ...rest] }))
      return 'the system message is set'
    }
  },
  reset: {
    description: 'clear the conversation and keep the system message',
    run: (state) => {
      state.session.reset()
      state.images = []
      state.videos = []
      return 'conversation cleared'
    }
  },
  save: {
    description: 'save the conversation to a file, with images as paths',
    argument: 'FILE',
    run: async (state, typed) => {
      const json = await state.session.save()
      await orRefuse(typedPath(typed), 'written', () => writeFile(typedPath(typed), json))
      return `${typedPath(typed)}: ${countAnswers(state)}`
    }
  },
  load: {
    description: 'load a saved conversation and continue',
    argument: 'FILE',
    run: async (state, typed) => {
      const json = await orRefuse(typedPath(typed), 'read', () => readFile(typedPath(typed), 'utf8'))
      replaceSession(state, restoreChat(state.internvl, json, state.options))
      return `${typedPath(typed)}: ${countAnswers(state)}`
    }
  },
  help: { description: 'list the commands', run: () => help() },
  exit: {
    description: 'quit; Ctrl-D and pressing Ctrl-C twice quit too',
    run: (state) => {
      state.isOver = true
      return ''
    }
  }
}

const help = (): string =>
  Object.entries(commands)
    .map(([name, { argument = '', description }]) => `  ${`/${name} ${argument}`.padEnd(14)} ${description}`)
    .join('\n')

/** Runs a line that begins with a slash and returns the text to print. Throws an `InternVLError` if the command fails. */
export const runCommand = async (state: ChatState, line: string): Promise<string> => {
  const [, name = '', argument = ''] = /^\/(\S*)\s*([\s\S]*?)\s*$/.exec(line) ?? []
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!command) return refuse(`/${name} is not a command; /help lists the commands.`)
  if (command.argument && argument === '') return refuse(`/${name} needs ${command.argument}: ${command.description}.`)
  return command.run(state, argument)
}

/** Completions of a line and the part of the line that they replace, for readline: names of commands, and paths after a command. */
export const complete = async (line: string): Promise<[string[], string]> => {
  const [, name, separator, argument = ''] = /^\/(\S*)(\s+)?(.*)$/.exec(line) ?? []
  if (name === undefined) return [[], line]
  if (separator === undefined) {
    const names = Object.keys(commands).filter((command) => command.startsWith(name))
    return [names.map((command) => (commands[command]!.argument ? `/${command} ` : `/${command}`)), line]
  }
  const takesPath = Object.hasOwn(commands, name) && ['PATH', 'FILE'].includes(commands[name]!.argument ?? '')
  return [takesPath ? [...(await completePath(argument))] : [], argument]
}
