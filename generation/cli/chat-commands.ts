import { readFile, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { InternVLError, issue, orThrow } from '../../lib/error.js'
import { openPicture } from '../../processors/image/image.js'
import { openFilm } from '../../processors/video/video.js'
import { type ChatOptions, type ChatSession, chat, restoreChat } from '../chat/chat.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { filmOf } from './flags/generation-flags.js'

/** A conversation on a terminal: the session, and what will be shown with the next message. Only commands change it. */
export interface Talk {
  readonly internvl: InternVLCheckpoint
  readonly options: ChatOptions
  session: ChatSession
  images: readonly string[]
  videos: readonly string[]
  over: boolean
}

interface ChatCommand {
  readonly says: string
  /** What it takes; a command with one refuses to run without. */
  readonly takes?: string
  /** Does it; what to tell the person. */
  readonly run: (talk: Talk, argument: string) => string | Promise<string>
}

const refuse = (message: string): never => {
  throw new InternVLError([issue('ChatCommand', message)])
}

/** A path as people type it: quoted, or below their home. */
const pathOf = (typed: string): string => {
  const bare = typed.replace(/^(['"])(.*)\1$/, '$2')
  return bare.startsWith('~/') ? join(homedir(), bare.slice(2)) : bare
}

const attempt = async <A>(file: string, what: string, run: () => Promise<A>): Promise<A> => {
  try {
    return await run()
  } catch (error) {
    return refuse(`${file}: it cannot be ${what} (${(error as Error).message}).`)
  }
}

const goOn = (talk: Talk, session: ChatSession): void => {
  talk.session.dispose()
  talk.session = session
}

const turnsOf = ({ session }: Talk): string => {
  const turns = session.history.filter(({ role }) => role === 'assistant').length
  return turns === 1 ? 'one answer' : `${turns} answers`
}

/** What begins with a slash. */
export const commands: Readonly<Record<string, ChatCommand>> = {
  image: {
    says: 'show a picture with the next message; a file or an http(s) address',
    takes: 'PATH',
    run: async (talk, typed) => {
      const path = pathOf(typed)
      const { width, height } = await orThrow(openPicture(path))
      talk.images = [...talk.images, path]
      return `${path}: ${width} x ${height} pixels, shown with your next message`
    }
  },
  video: {
    says: 'show a film with the next message; its file, or a folder of frames',
    takes: 'PATH',
    run: async (talk, typed) => {
      const path = pathOf(typed)
      const { totalNumFrames } = await orThrow(openFilm(filmOf(path)))
      talk.videos = [...talk.videos, path]
      return `${path}: ${totalNumFrames} frames, shown with your next message`
    }
  },
  system: {
    says: 'set the system message; what was said stays',
    takes: 'TEXT',
    run: (talk, text) => {
      const rest = talk.session.history.filter(({ role }) => role !== 'system')
      goOn(talk, chat(talk.internvl, { ...talk.options, history: [{ role: 'system', content: text }, ...rest] }))
      return 'the system message is set'
    }
  },
  reset: {
    says: 'forget the conversation, but not the system message',
    run: (talk) => {
      talk.session.reset()
      talk.images = []
      talk.videos = []
      return 'forgotten'
    }
  },
  save: {
    says: 'write the conversation to a file, pictures by their paths',
    takes: 'FILE',
    run: async (talk, typed) => {
      const json = await talk.session.save()
      await attempt(pathOf(typed), 'written', () => writeFile(pathOf(typed), json))
      return `${pathOf(typed)}: ${turnsOf(talk)}`
    }
  },
  load: {
    says: 'go on with a conversation that was saved',
    takes: 'FILE',
    run: async (talk, typed) => {
      const json = await attempt(pathOf(typed), 'read', () => readFile(pathOf(typed), 'utf8'))
      goOn(talk, restoreChat(talk.internvl, json, talk.options))
      return `${pathOf(typed)}: ${turnsOf(talk)}`
    }
  },
  help: { says: 'this list', run: () => help() },
  exit: {
    says: 'leave; so do Ctrl-D, and Ctrl-C twice',
    run: (talk) => {
      talk.over = true
      return ''
    }
  }
}

const help = (): string =>
  Object.entries(commands)
    .map(([name, { takes = '', says }]) => `  ${`/${name} ${takes}`.padEnd(14)} ${says}`)
    .join('\n')

/** Runs a line that begins with a slash; what to tell the person. Throws an `InternVLError` for what cannot be done. */
export const runCommand = async (talk: Talk, line: string): Promise<string> => {
  const [, name = '', argument = ''] = /^\/(\S*)\s*([\s\S]*?)\s*$/.exec(line) ?? []
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!command) return refuse(`/${name} is no command; /help lists them.`)
  if (command.takes && argument === '') return refuse(`/${name} needs ${command.takes}: it is to ${command.says}.`)
  return command.run(talk, argument)
}
