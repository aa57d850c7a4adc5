import { spawn } from 'node:child_process'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'

/** A program and its first arguments: `['python3', '-I', '-m', 'pip']`. */
export type Command = readonly [program: string, ...first: string[]]

/** A child process that could not start, or ended with another exit code than 0. */
export interface FailedProcess {
  /** Exit code; `null` where a signal ended the process, `undefined` where the program does not exist. */
  readonly status: number | null | undefined
  readonly stderr: string
}

export interface ProcessOptions {
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  /** Receives every line of standard output. */
  readonly onLine?: (line: string) => void
}

/** Runs a program and returns its standard output. `signal` ends the program. */
export const runProcess =
  (
    [program, ...first]: Command,
    args: readonly string[],
    { env, signal, onLine }: ProcessOptions
  ): TaskEither<FailedProcess, string> =>
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

/** The most informative line of a program's standard error: the last line that contains "error", else the last line. */
export const errorLine = ({ stderr }: FailedProcess): string => {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '')
  return (lines.findLast((line) => /error/i.test(line)) ?? lines.at(-1) ?? 'no reason given').trim().slice(0, 300)
}
