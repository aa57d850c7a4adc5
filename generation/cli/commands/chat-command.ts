import { join } from 'node:path'
import { Command } from 'commander'
import { cacheFolder } from '../../../lib/engines/install/engine-folder.js'
import { loadWithProgress, say, withModelOptions } from '../common.js'
import { type GenerationFlags, generationOptions, withGenerationOptions } from '../flags/generation-flags.js'

const converse = async (flags: GenerationFlags): Promise<void> => {
  const internvl = await loadWithProgress(flags)
  const { runChat } = await import('../chat-loop.js')
  const terminal = Boolean(process.stdin.isTTY && process.stderr.isTTY)
  if (terminal) say(`${internvl.dir} on ${internvl.engine.name}; /help lists commands, /exit leaves`)
  const well = await runChat({
    internvl,
    options: { ...generationOptions(flags), system: flags.system },
    images: flags.image ?? [],
    videos: flags.video ?? [],
    input: process.stdin,
    output: process.stdout,
    remarks: process.stderr,
    terminal,
    historyFile: join(cacheFolder(), 'chat-history')
  })
  internvl.dispose()
  if (!well && !terminal) process.exitCode = 1
}

/** `internvl chat`: a conversation; answers alone on standard output. Without a terminal each line of the input is a turn. */
export const chatCommand = (): Command =>
  withGenerationOptions(withModelOptions(new Command('chat')))
    .description('a conversation about pictures, films or nothing')
    .addHelpText('after', '\nExample:\n  internvl chat --image photo.jpg')
    .action(converse)
