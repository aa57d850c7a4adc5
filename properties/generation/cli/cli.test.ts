import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CommanderError } from 'commander'
import { runChatLoop } from '../../../generation/cli/chat-loop.js'
import { askCommand } from '../../../generation/cli/commands/ask-command.js'
import { chatCommand } from '../../../generation/cli/commands/chat-command.js'
import { generationOptions } from '../../../generation/cli/flags/generation-flags.js'
import { type ChatOptions, type InternVLCheckpoint, load, tf } from '../../../generation/root.js'

const shown = (name: string): string => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))
const described =
  'There is a green circle at the top left, a black star at the top right, a blue triangle at the bottom left and a pink triangle at the bottom right.'

/** A stream that collects what is written, and calls `heard` for each chunk. */
const listening = (onText: (text: string) => void = () => {}) => {
  const pieces: string[] = []
  const stream = new Writable({
    write: (chunk, _, done) => {
      pieces.push(String(chunk))
      onText(String(chunk))
      done()
    }
  })
  return { stream, text: () => pieces.join('') }
}

describe('command line', () => {
  let internvl: InternVLCheckpoint
  let folder: string
  before(async () => {
    internvl = await load()
    folder = await mkdtemp(join(tmpdir(), 'internvl-'))
  })
  after(async () => {
    internvl.dispose()
    await rm(folder, { recursive: true })
  })

  /** Runs a conversation without a terminal: lines in, answers and messages out. */
  const script = async (lines: readonly string[], options: ChatOptions = {}, images: readonly string[] = []) => {
    const [output, messages, input] = [listening(), listening(), new PassThrough()]
    input.end(lines.join('\n'))
    const streams = { input, output: output.stream, messages: messages.stream }
    const succeeded = await runChatLoop({ internvl, options, images, videos: [], ...streams, terminal: false, historyFile: '' })
    return { succeeded, output: output.text(), messages: messages.text() }
  }

  describe('chat', () => {
    it('without a terminal each line is a message, and the output holds the answers alone', async () => {
      const before = tf.memory().numTensors
      const lines = [
        'Describe the image.',
        '',
        'How many circles are there?',
        `/image ${shown('circle.png')}`,
        'Which picture has more shapes?',
        '/exit',
        'Who?'
      ]
      const { succeeded, output, messages } = await script(lines, {}, [shown('shapes.png')])
      assert.equal(output, `${described}\nOne.\nThe first one.\n`)
      assert.match(messages, /circle\.png: 344 x 311 pixels/)
      assert.ok(succeeded)
      assert.equal(tf.memory().numTensors, before)
    })

    it('continues after a failed line, prints one sentence for each, and returns false', async () => {
      const lines = [
        '/king',
        '/image',
        '/image nowhere.png',
        `/video ${folder}`,
        '/load nowhere.json',
        '/save /nowhere/x.json',
        'Who are you?'
      ]
      const { succeeded, output, messages } = await script(lines)
      assert.match(output, /^I am [^\n]+\n$/)
      const messageLines = messages.trim().split('\n')
      const expected = [
        /\/king is not a command/,
        /\/image needs PATH/,
        /nowhere\.png: no such/,
        /no images/,
        /nowhere\.json/,
        /\/nowhere\/x\.json/
      ]
      for (const [i, sentence] of expected.entries()) assert.match(messageLines[i]!, sentence)
      assert.equal(messageLines.length, expected.length)
      assert.ok(!succeeded)
    })

    it('saves, clears and loads conversations; the system message occurs once', async () => {
      const file = join(folder, 'chat.json')
      const first = [
        `/image ${shown('shapes.png')}`,
        `/video ${shown('video')}`,
        'Describe the image.',
        '/system Be brief.',
        `/save "${file}"`,
        '/reset',
        '/help'
      ]
      assert.ok((await script(first, { system: 'Be long.' })).succeeded)
      const roles = JSON.parse(await readFile(file, 'utf8')).messages.map(({ role }: { role: string }) => role)
      assert.deepEqual(roles, ['system', 'user', 'assistant'])
      const again = await script([`/load ${file}`, 'How many circles are there?', `/save ${file}`], { system: 'Be long.' })
      assert.match(again.messages, /chat\.json: 1 answer/)
      const saved = JSON.parse(await readFile(file, 'utf8')).messages
      assert.equal(saved.length, 5)
      assert.equal(saved[0].content, 'Be brief.')
    })

    it('on a terminal Ctrl-C stops the answer, twice at the prompt it quits; the input history is stored', async () => {
      const historyFile = join(folder, 'cache', 'chat-history')
      const converse = async (person: (written: string, type: (keys: string) => void) => void) => {
        const input = new PassThrough()
        const type = (keys: string) => void input.write(keys)
        const output = listening((text) => person(text, type))
        const messages = listening((text) => person(text, type))
        const streams = { input, output: output.stream, messages: messages.stream }
        const well = await runChatLoop({
          internvl,
          options: {},
          images: [shown('shapes.png')],
          videos: [],
          ...streams,
          terminal: true,
          historyFile
        })
        return { well, output: output.text() }
      }
      const plan = ['Describe the image.\r', 'How many circles are there?\r', 'half a line\u0003', '\u0003']
      let answered = ''
      const first = await converse((written, type) => {
        if (written.includes('> ') && plan.length > 0) type(plan.shift()!)
        answered += written
        if (answered.endsWith('green')) type('\u0003')
      })
      assert.match(first.output, /^There is a green[^.]{0,20}\nOne\.\n$/)
      assert.ok(first.well)
      assert.equal(await readFile(historyFile, 'utf8'), 'Describe the image.\nHow many circles are there?\n')
      const second = ['\u001b[A\u001b[A\r', '/exit\r'] // the last line but one
      const { output } = await converse((written, type) => {
        if (written.includes('> ') && second.length === 2) type(second.shift()!)
        else if (written === '\n') type(second.shift()!)
      })
      assert.equal(output, `${described}\n`)
    })
  })

  describe('ask', () => {
    it('refuses invalid options by name', async () => {
      const refusals: readonly (readonly [string[], RegExp])[] = [
        [['--temperature', '-1'], /--temperature.*of 0 or more/],
        [['--temperature', 'hot'], /--temperature/],
        [['--top-p', '0'], /--top-p.*above 0 and at most 1/],
        [['--top-p', '1.5'], /--top-p/],
        [['--top-k', '1.5'], /--top-k/],
        [['--num-beams', '0'], /--num-beams/],
        [['--seed', '-1'], /--seed/],
        [['--stop', ''], /--stop.*empty/],
        [['--num-frames', '0'], /--num-frames/],
        [['--fps', '0'], /--fps/],
        [['--num-frames', '2', '--fps', '1'], /--num-frames.*cannot be used with.*--fps/],
        [['--visual-delta', '0'], /--visual-delta.*auto, or a number above 0 and at most 1/],
        [['--visual-delta', '3/2'], /--visual-delta/],
        [['--draw', 'out.png'], /--draw needs an --image/],
        [['--best-of', '0'], /--best-of/],
        [['--best-of', '2', '--num-beams', '2'], /--best-of.*cannot be used with.*--num-beams/],
        [['--best-of', '2', '--assistant-model', 'm'], /--best-of.*cannot be used with.*--assistant-model/],
        [['--best-of', '2', '--temperature', '0'], /--best-of needs sampled answers/],
        [['--scorer', 'logprob'], /--scorer needs --best-of/]
      ]
      for (const command of [askCommand, chatCommand])
        for (const [flags, sentence] of refusals) {
          if (command === chatCommand && ['--draw', '--best-of', '--scorer'].includes(flags[0]!)) continue
          const errors = listening()
          const run = command()
            .exitOverride()
            .configureOutput({ writeErr: (text) => void errors.stream.write(text) })
          await assert.rejects(
            run.parseAsync(['node', 'internvl', ...flags, ...(command === askCommand ? ['hi'] : [])]),
            CommanderError
          )
          assert.match(errors.text(), sentence)
        }
    })

    it('flags become options; any sampling option turns sampling on', () => {
      assert.deepEqual(generationOptions({}), {})
      assert.deepEqual(generationOptions({ numBeams: 3, stop: ['a'] }), { numBeams: 3, stopStrings: ['a'] })
      assert.deepEqual(generationOptions({ temperature: 0.5, maxPatches: 2 }), {
        temperature: 0.5,
        maxPatches: 2,
        doSample: true
      })
      assert.deepEqual(generationOptions({ topP: 1, seed: 0 }), { topP: 1, seed: 0, doSample: true })
    })

    it('ends quietly when the reader closes the pipe', async () => {
      const bin = fileURLToPath(new URL('../../../generation/bin.js', import.meta.url))
      const child = spawn('node', [bin, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
      child.stdout.destroy()
      const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'close')])
      assert.deepEqual([errors, code], ['', 0])
    })

    it('answers about videos, stops, draws and reports, with exit codes', async () => {
      const bin = fileURLToPath(new URL('../../../generation/bin.js', import.meta.url))
      const run = (...args: string[]) => promisify(execFile)('node', [bin, ...args])
      const video = await run('ask', '--video', shown('video'), '--num-frames', '3', 'What happens in this video?')
      assert.equal(video.stdout, 'The orange circle moves up.\n')
      const out = join(folder, 'out.png')
      const boxed = await run(
        'ask',
        '--image',
        shown('shapes.png'),
        '--draw',
        out,
        '--json',
        '--stop',
        ' at',
        'Describe the image.'
      )
      const { answer, boxes, finishReason } = JSON.parse(boxed.stdout)
      assert.deepEqual({ answer, boxes, finishReason }, { answer: 'There is a green circle', boxes: [], finishReason: 'stop' })
      assert.match(boxed.stderr, /out\.png: .*shapes\.png with 0 boxes/)
      assert.ok((await readFile(out)).length > 0)
      const short = await run('ask', '--video', shown('video'), '--num-frames', '9', 'What happens in this video?')
      assert.equal(short.stdout, video.stdout)
      assert.equal(short.stderr, 'using all 3 frames of a video, fewer than the 9 requested\n')
      const judge = fileURLToPath(new URL('../../../models/demo', import.meta.url))
      const asked = ['--visual-delta', '1/2', '--best-of', '2', '--seed', '1', '--scorer', judge, '--json', 'Describe the image.']
      const best = await run('ask', '--image', shown('circle.png'), ...asked)
      const { answers, answer: text } = JSON.parse(best.stdout)
      assert.equal(text, answers[0].text)
      assert.ok(answers.length === 2 && answers[0].score >= answers[1].score && answers[0].score <= 1)
      for (const [flags, sentence] of [
        [['--mmproj', 'no.gguf'], /--mmproj: needs --model/],
        [
          ['--cache-implementation', 'quantized', '--kv-cache', 'float32'],
          /kvCache: expected 'int8' with cacheImplementation 'quantized'/
        ]
      ] as const)
        await assert.rejects(run('ask', 'x', ...flags), { code: 1, stderr: sentence })
      for (const command of [['chat'], ['ask', 'x']]) // one sentence, and no stack trace
        await assert.rejects(run(...command, '--image', 'nowhere.png'), {
          code: 1,
          stderr: /internvl: nowhere\.png: no such image[^\n]*\n$/
        })
    })
  })
})
