import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { hasRedis, startRedis } from './redis-server.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))

const start = (args: readonly string[], cwd: string) => {
  const child = spawn(process.execPath, [join(root, 'generation/bin.js'), ...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (data) => (output.stdout += data))
  child.stderr.on('data', (data) => (output.stderr += data))
  return { child, output, ended: once(child, 'exit') as Promise<[code: number | null]> }
}

const run = async (args: readonly string[], cwd: string) => {
  const { output, ended } = start(args, cwd)
  const [code] = await ended
  return { code, ...output }
}

describe('internvl batch and internvl jobs', () => {
  let dir: string
  const rows = Array.from({ length: 24 }, (_, i) => ({
    id: i,
    question: i % 2 ? 'How many circles are there?' : `${'Look. '.repeat(i)}Which color is the circle?`,
    image: 'circle.png'
  }))
  const lines = async (file: string) => (await readFile(join(dir, file), 'utf8')).trim().split('\n')
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'batch-command-'))
    await copyFile(join(root, 'generation/demo/circle.png'), join(dir, 'circle.png'))
    await writeFile(
      join(dir, 'questions.jsonl'),
      [...rows, { id: 'last', question: 'What?', image: 'missing.png' }].map((row) => `${JSON.stringify(row)}\n`).join('')
    )
  })
  after(() => rm(dir, { recursive: true }))

  it('a batch that is killed continues: no row is lost, none is there twice, and the row with an error gives exit code 1', async () => {
    const args = ['batch', 'questions.jsonl', '--out', 'answers.jsonl', '--max-new-tokens', '12', '--batch', '2']
    const { child, ended } = start(args, dir)
    while ((await lines('answers.jsonl').catch(() => [''])).length < 4) await Promise.race([setTimeout(20), ended])
    child.kill('SIGKILL')
    await ended
    const before = await lines('answers.jsonl')
    assert.ok(before.length < 25, 'the batch was killed before its end')
    const { code, stderr } = await run(args, dir)
    assert.equal(code, 1, stderr)
    assert.match(stderr, /continuing after \d+ of 25 rows; --restart begins again/)
    assert.match(stderr, /25 of 25 rows in answers\.jsonl, \d+ answered now in [\d.]+ s, 1 with errors/)
    const answers = (await lines('answers.jsonl')).map((line) => JSON.parse(line))
    assert.deepEqual(
      answers.map(({ row }) => row),
      Array.from({ length: 25 }, (_, row) => row)
    )
    assert.match(answers[24].error, /missing\.png: no such image/)
    for (const { answer, tokens, finishReason, logprob, error } of answers.slice(0, 24)) {
      assert.ok(
        typeof answer === 'string' && tokens > 0 && ['eos', 'length'].includes(finishReason) && logprob <= 0 && error === null
      )
    }
    const refused = await run([...args, '--shard', '2/2'], dir)
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, /shard 2\/2: parts are counted from 0; the last of 2 is 1\/2/)
    const other = await run([...args, '--image-backend', 'pillow'], dir)
    assert.equal(other.code, 1)
    assert.match(other.stderr, /answers\.jsonl: its answers are of another model; give another --out/)
  }).timeout(180_000)

  it('a queue gives the answers of one machine, by the commands alone', async function () {
    if (!hasRedis) return this.skip()
    const redis = await startRedis()
    try {
      const queue = ['--queue', redis.url]
      const submitted = await run(
        ['jobs', 'submit', 'questions.jsonl', ...queue, '--name', 'demo', '--chunk', '5', '--max-new-tokens', '12'],
        dir
      )
      assert.deepEqual([submitted.code, submitted.stderr], [0, 'run demo: 25 of 25 rows are in the queue\n'])
      const worked = await run(['jobs', 'work', ...queue, '--batch', '4', '--until-done', '--dashboard', '0'], dir)
      assert.equal(worked.code, 0, worked.stderr)
      assert.match(worked.stderr, /dashboard on http:\/\/127\.0\.0\.1:\d+/)
      const { stdout } = await run(['jobs', 'status', ...queue], dir)
      assert.match(stdout, /^run demo: complete, .*questions\.jsonl\n {2}rows {6}25 of 25 answered, 1 with errors\n/)
      const dead = await run(['jobs', 'status', ...queue, '--dead'], dir)
      assert.equal(JSON.parse(dead.stdout).id, 'last')
      const collected = await run(['jobs', 'collect', ...queue, '--out', 'collected.jsonl'], dir)
      assert.deepEqual([collected.code, collected.stderr], [1, 'run demo: 25 of 25 rows in collected.jsonl, 1 with errors\n'])
      const [one, many] = await Promise.all(
        ['answers.jsonl', 'collected.jsonl'].map(async (file) => (await lines(file)).map((line) => JSON.parse(line)))
      )
      const text = ({ logprob: _, ...answer }: { readonly logprob: number }) => answer
      assert.deepEqual(many!.map(text), one!.map(text))
      for (const [i, { logprob }] of many!.entries()) assert.ok(Math.abs(logprob - one![i].logprob) <= 2e-4)
      assert.match(
        (await run(['jobs', 'retry', ...queue], dir)).stderr,
        /1 rows with errors and 0 failed jobs are in the queue again/
      )
      assert.match(
        (await run(['jobs', 'cancel', ...queue, '--remove'], dir)).stderr,
        /run demo: cancelled after 25 of 25 rows; its answers are deleted/
      )
      const none = await run(['jobs', 'status', ...queue], dir)
      assert.deepEqual([none.code, none.stdout], [1, ''])
      assert.match(none.stderr, /^internvl: redis:\/\/127\.0\.0\.1:\d+: no runs; begin with jobs submit\n$/)
    } finally {
      await redis.close()
    }
  }).timeout(180_000)
})
