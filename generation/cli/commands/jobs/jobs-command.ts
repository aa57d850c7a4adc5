import { Command } from 'commander'
import { cancelCommand, collectCommand, retryCommand } from './result-commands.js'
import { statusCommand } from './status-command.js'
import { submitCommand } from './submit-command.js'
import { workCommand } from './work-command.js'

/** `internvl jobs`: answers the rows of a file on many machines, by a queue. */
export const jobsCommand = (): Command => {
  const jobs = new Command('jobs')
    .description('answer the rows of a file on many machines, by a queue in Redis 7, Valkey or PostgreSQL')
    .addHelpText(
      'after',
      `
Examples:
  internvl jobs submit questions.jsonl --queue redis://queue:6379 --name captions
  internvl jobs work --queue redis://queue:6379 --model OpenGVLab/InternVL3-1B-hf     # on every machine
  internvl jobs status --queue redis://queue:6379
  internvl jobs collect --queue redis://queue:6379 --name captions --out answers.jsonl --wait`
    )
  for (const command of [submitCommand(), workCommand(), statusCommand(), collectCommand(), retryCommand(), cancelCommand()])
    jobs.addCommand(command.copyInheritedSettings(jobs).exitOverride())
  return jobs
}
