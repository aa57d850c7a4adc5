import { join } from 'node:path'
import { Command } from 'commander'
import { cacheFolder } from '../../../lib/engines/install/engine-folder.js'
import { info, loadWithProgress, withModelOptions } from '../common.js'
import { type GenerationFlags, generationOptions, withGenerationOptions } from '../flags/generation-flags.js'

const runChat = async (flags: GenerationFlags): Promise<void> => {
  const internvl = await loadWithProgress(flags)
  const { runChatLoop } = await import('../chat-loop.js')
  const terminal = Boolean(process.stdin.isTTY && process.stderr.isTTY)
  if (terminal) info(`${internvl.dir} on ${internvl.engine.name}; /help lists the commands, /exit quits`)
  const allAnswered = await runChatLoop({
    internvl,
    options: { ...generationOptions(flags), system: flags.system },
    images: flags.image ?? [],
    videos: flags.video ?? [],
    input: process.stdin,
    output: process.stdout,
    messages: process.stderr,
    terminal,
    colors: terminal && process.stderr.hasColors(), // false with NO_COLOR
    historyFile: join(cacheFolder(), 'chat-history')
  })
  internvl.dispose()
  if (!allAnswered && !terminal) process.exitCode = 1
}

/** `internvl chat`: a conversation. Standard output holds the answers alone. Without a terminal each input line is a message. */
export const chatCommand = (): Command =>
  withGenerationOptions(withModelOptions(new Command('chat')))
    .description('chat about images, videos or text')
    .addHelpText('after', '\nExample:\n  internvl chat --image photo.jpg')
    .action(runChat)
