import { CommanderError } from 'commander'
import { isExpectedError } from '../../lib/error.js'
import { info } from './common.js'
import { program } from './program.js'

/** Control characters, which messages may quote from a wrong file; a terminal would follow them. */
const controls = /(?![\n\t])\p{Cc}/gu

/** Runs a command line. Exit code: 0, 1 for an error, 2 for invalid arguments. */
export const run = async (argv: readonly string[]): Promise<number> => {
  try {
    await program().parseAsync([...argv])
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2 // commander printed the message
    const text = isExpectedError(error)
      ? error.message.replace(controls, '?').replaceAll('\n', '\ninternvl: ')
      : ((error as Error)?.stack ?? error)
    info(`internvl: ${text}`)
    return 1
  }
}

// a reader such as `head` may close the pipe: this is not an error, and files in progress are still written
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})
process.exitCode = await run(process.argv)
