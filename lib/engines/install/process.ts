import { spawn } from 'node:child_process'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'

/** A command and the arguments that always stand first: `['python3', '-m', 'pip']`. */
export type Command = readonly [program: string, ...first: string[]]

/** A child process that could not start, or did not end with 0. */
export interface Failed {
  /** `undefined`: there is no such program. */
  readonly status: number | null | undefined
  readonly stderr: string
}

export interface RunOptions {
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  /** Called with each line of its standard output. */
  readonly onLine?: (line: string) => void
}

/** Runs a program to its end; what it wrote to standard output. Aborting `signal` ends it. */
export const run =
  ([program, ...first]: Command, args: readonly string[], { env, signal, onLine }: RunOptions): TaskEither<Failed, string> =>
  () =>
    new Promise((resolve) => {
      const child = spawn(program, [...first, ...args], { env, signal, stdio: ['ignore', 'pipe', 'pipe'] })
      let [stdout, stderr, rest] = ['', '', '']
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        stdout += chunk
        const lines = (rest + chunk).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) onLine?.(line)
      })
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
        stderr += chunk
      })
      child.on('error', (error: NodeJS.ErrnoException) =>
        resolve(E.left({ status: error.name === 'AbortError' ? null : undefined, stderr: `${stderr}${error.message}` }))
      )
      child.on('close', (status) => resolve(status === 0 ? E.right(stdout) : E.left({ status, stderr })))
    })

/** The line of a program's complaint that says most: the last that speaks of an error, else the last. */
export const complaint = ({ stderr }: Failed): string => {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '')
  return (lines.findLast((line) => /error/i.test(line)) ?? lines.at(-1) ?? 'it gave no reason').trim().slice(0, 300)
}
