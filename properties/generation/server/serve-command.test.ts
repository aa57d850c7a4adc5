import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { ask, readStream } from './test-server.js'

const bin = fileURLToPath(new URL('../../../generation/bin.js', import.meta.url))

const start = (...args: readonly string[]) => {
  const child = spawn(process.execPath, [bin, 'serve', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, INTERNVL_API_KEY: '' }
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (data) => (output.stdout += data))
  child.stderr.on('data', (data) => (output.stderr += data))
  return { child, output, ended: once(child, 'exit') as Promise<[code: number | null]> }
}

describe('internvl serve', () => {
  it('prints its address, answers, and ends with 0 after SIGTERM when the running answers are complete', async () => {
    const { child, output, ended } = start('--port', '0', '--api-key', 'a-good-key', '--no-ui', '--name', 'small')
    await Promise.race([once(child.stdout, 'data'), ended])
    const [, url = ''] =
      /^small on (http:\/\/127\.0\.0\.1:\d+) \(base URL of OpenAI clients: \1\/v1\)\n$/.exec(output.stdout) ?? []
    assert.notEqual(url, '', output.stdout + output.stderr)
    const headers = { authorization: 'Bearer a-good-key' }
    const request = {
      model: 'small',
      messages: [{ role: 'user', content: 'A secret?' }],
      max_tokens: 150,
      logit_bias: { 10: 100 }
    }
    assert.equal((await ask(url, request)).status, 401)
    const whole = readStream(url, request, { headers })
    await new Promise((resolve) => setTimeout(resolve, 300))
    child.kill('SIGTERM')
    const chunks = await whole
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'length')
    const [code] = await ended
    assert.equal(code, 0, output.stderr)
    for (const line of output.stderr.trim().split('\n')) JSON.parse(line)
    assert.ok(!/a-good-key|secret/.test(output.stderr))
  })

  it('refuses an address that others reach without a key, with exit code 2', async () => {
    const { output, ended } = start('--host', '0.0.0.0', '/no/such/model')
    assert.equal((await ended)[0], 2)
    assert.match(output.stderr, /--api-key/)
    assert.equal(output.stdout, '')
  })
})
