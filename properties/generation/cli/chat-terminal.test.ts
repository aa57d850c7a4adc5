import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { type ChatLoopOptions, runChatLoop } from '../../../generation/cli/chat-loop.js'

/** Everything that a conversation on a terminal writes, in order. `plan` has the keys that are typed at each prompt. */
const converse = async (internvl: InternVLCheckpoint, plan: string[], options: Partial<ChatLoopOptions>) => {
  const input = new PassThrough()
  const type = async (keys: string) => {
    for (const part of keys.split(/(?<=\t)/)) {
      await sleep(50) // completion reads a folder
      input.write(part)
    }
  }
  const written: { readonly to: 'output' | 'messages'; readonly text: string }[] = []
  const stream = (to: 'output' | 'messages') =>
    new Writable({
      write: (chunk, _, done) => {
        written.push({ to, text: String(chunk) })
        if (to === 'messages' && String(chunk).includes('> ')) void type(plan.shift() ?? '/exit\r')
        done()
      }
    })
  const streams = { input, output: stream('output'), messages: stream('messages') }
  await runChatLoop({ internvl, options: {}, images: [], videos: [], historyFile: '', terminal: true, ...streams, ...options })
  const textOf = (to: 'output' | 'messages') =>
    written
      .filter((entry) => entry.to === to)
      .map(({ text }) => text)
      .join('')
  return { written, output: textOf('output'), messages: textOf('messages') }
}

describe('chat on a terminal', () => {
  let internvl: InternVLCheckpoint
  let folder: string
  before(async () => {
    internvl = await load()
    folder = await mkdtemp(join(tmpdir(), 'terminal-'))
  })
  after(async () => {
    internvl.dispose()
    await rm(folder, { recursive: true })
  })

  it('several pasted lines are one message, which Enter sends; the input history keeps the message in one line', async () => {
    const historyFile = join(folder, 'history')
    const saved = join(folder, 'chat.json')
    const plan = ['\u001b[200~Hello!\nWho are you?\n\u001b[201~ Tell.\r', `/save ${saved}\r`]
    const { output } = await converse(internvl, plan, { historyFile })
    assert.equal(output.trim().split('\n').length, 1)
    const [user] = JSON.parse(await readFile(saved, 'utf8')).messages
    assert.equal(user.content, 'Hello!\nWho are you?\n Tell.')
    assert.equal((await readFile(historyFile, 'utf8')).split('\n').length, 4) // the message, /save, /exit
    const again = await converse(internvl, ['\u001b[A\u001b[A\u001b[A\r', `/save ${saved}\r`], { historyFile })
    assert.equal(JSON.parse(await readFile(saved, 'utf8')).messages[0].content, user.content)
    assert.equal(again.output, output)
  })

  it('turns bracketed paste on, and off at the end', async () => {
    const { written, messages } = await converse(internvl, [], {})
    assert.equal(written[0]!.text, '\u001b[?2004h')
    assert.ok(messages.endsWith('\u001b[?2004l'))
  })

  it('shows from the first moment that the prompt is read, and removes this before the answer', async () => {
    const { written } = await converse(internvl, ['Who are you?\r'], {})
    const [reading, cleared] = [
      written.findIndex(({ text }) => text === '\rreading …'),
      written.findIndex(({ text }) => text === '\r\u001b[K')
    ]
    const answer = written.findIndex(({ to }) => to === 'output')
    assert.ok(reading > 0 && reading < cleared && cleared < answer, `${reading} ${cleared} ${answer}`)
    assert.ok(!written.slice(answer).some(({ text }) => text.includes('reading')))
    const failed = await converse(internvl, ['/image nowhere.png\r'], {})
    assert.ok(!failed.messages.includes('reading'))
  })

  it('has colors only if they are asked for', async () => {
    const plan = () => ['/king\r', 'Who are you?\r']
    const isColor = (text: string) => text.includes('\u001b[31m') || text.includes('\u001b[32m') || text.includes('\u001b[2m')
    assert.equal(isColor((await converse(internvl, plan(), {})).messages), false)
    const { messages, output } = await converse(internvl, plan(), { colors: true })
    assert.match(messages, /\[31m\/king is not a command/)
    assert.ok(messages.includes('\u001b[32m> \u001b[0m') && messages.includes('\u001b[2mreading …'))
    assert.ok(!output.includes('\u001b'))
  })

  it('Tab completes a command', async () => {
    const { messages } = await converse(internvl, ['/res\t\r'], {})
    assert.match(messages, /conversation cleared/)
  })
})
