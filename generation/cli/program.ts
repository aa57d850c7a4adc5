import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { askCommand } from './commands/ask-command.js'
import { assembleCommand } from './commands/assemble-command.js'
import { batchCommand } from './commands/batch-command.js'
import { chatCommand } from './commands/chat-command.js'
import { convertCommand } from './commands/convert-command.js'
import { demoCommand } from './commands/demo/demo-command.js'
import { demoEvalCommand } from './commands/demo/demo-eval-command.js'
import { demoTrainCommand } from './commands/demo/demo-train-command.js'
import { doctorCommand } from './commands/doctor-command.js'
import { downloadCommand } from './commands/download-command.js'
import { embedCommand } from './commands/embed-command.js'
import { evalCommand } from './commands/eval-command.js'
import { explainCommand } from './commands/explain/explain-command.js'
import { inspectCommand } from './commands/inspect-command.js'
import { jobsCommand } from './commands/jobs/jobs-command.js'
import { mergeCommand } from './commands/merge-command.js'
import { perplexityCommand } from './commands/perplexity-command.js'
import { serveCommand } from './commands/serve-command.js'
import { setupCommand } from './commands/setup-command.js'
import { trainCommand } from './commands/train-command.js'

const findPackage = (from: URL): { readonly version: string } => {
  try {
    return JSON.parse(readFileSync(new URL('package.json', from), 'utf8'))
  } catch {
    return findPackage(new URL('..', from))
  }
}

/** The command line with all commands. Invalid arguments throw a `CommanderError`. */
export const program = (): Command => {
  const commands = [
    askCommand(),
    batchCommand(),
    jobsCommand(),
    chatCommand(),
    convertCommand(),
    assembleCommand(),
    demoCommand(),
    demoEvalCommand(),
    demoTrainCommand(),
    embedCommand(),
    evalCommand(),
    perplexityCommand(),
    explainCommand(),
    inspectCommand(),
    downloadCommand(),
    trainCommand(),
    mergeCommand(),
    serveCommand(),
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
