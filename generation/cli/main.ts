import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { askCommand } from './commands/ask-command.js'
import { chatCommand } from './commands/chat-command.js'
import { convertCommand } from './commands/convert-command.js'
import { demoCommand } from './commands/demo-command.js'
import { demoEvalCommand } from './commands/demo-eval-command.js'
import { demoTrainCommand } from './commands/demo-train-command.js'
import { doctorCommand } from './commands/doctor-command.js'
import { downloadCommand } from './commands/download-command.js'
import { embedCommand } from './commands/embed-command.js'
import { evalCommand } from './commands/eval-command.js'
import { inspectCommand } from './commands/inspect-command.js'
import { mergeCommand } from './commands/merge-command.js'
import { perplexityCommand } from './commands/perplexity-command.js'
import { setupCommand } from './commands/setup-command.js'
import { trainCommand } from './commands/train-command.js'
import { say } from './common.js'

const findPackage = (from: URL): { readonly version: string } => {
  try {
    return JSON.parse(readFileSync(new URL('package.json', from), 'utf8'))
  } catch {
    return findPackage(new URL('..', from))
  }
}

/** The whole command line. Calling it wrongly is a `CommanderError`. */
export const program = (): Command => {
  const commands = [
    askCommand(),
    chatCommand(),
    convertCommand(),
    demoCommand(),
    demoEvalCommand(),
    demoTrainCommand(),
    embedCommand(),
    evalCommand(),
    perplexityCommand(),
    inspectCommand(),
    downloadCommand(),
    trainCommand(),
    mergeCommand(),
    setupCommand(),
    doctorCommand()
  ]
  const root = new Command('internvl')
    .description('InternVL, a vision-language model, in TypeScript')
    .version(findPackage(new URL('.', import.meta.url)).version)
    .showHelpAfterError('(add --help for all options)')
  for (const command of commands) root.addCommand(command.copyInheritedSettings(root).exitOverride())
  return root.exitOverride()
}

/** Runs a command line; the exit code: 0, 1 when it failed, 2 when it was called wrongly. */
export const run = async (argv: readonly string[]): Promise<number> => {
  try {
    await program().parseAsync([...argv])
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2 // its message is on standard error already
    const known = error instanceof Error && ['InternVLError', 'RangeError', 'ShapeError'].includes(error.name)
    say(known ? `internvl: ${error.message.replaceAll('\n', '\ninternvl: ')}` : `internvl: ${(error as Error)?.stack ?? error}`)
    return 1
  }
}

// whoever reads the answer may have enough of it, as `head` does: that is no failure, and what is being written elsewhere is finished
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})
process.exitCode = await run(process.argv)
