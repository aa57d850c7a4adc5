import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

/** Whether Debian's `redis-server` is installed; the tests that need one are skipped without. */
export const hasRedis = spawnSync('redis-server', ['--version']).status === 0

export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { readonly port: number }
  server.close()
  return port
}

/** A Redis server with AOF in a folder of its own. */
export const startRedis = async () => {
  const [port, dir] = [await freePort(), await mkdtemp(join(tmpdir(), 'redis-'))]
  let child: ChildProcess
  const begin = async (): Promise<void> => {
    const args = [
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--dir',
      dir,
      '--appendonly',
      'yes',
      '--save',
      '',
      '--maxmemory-policy',
      'noeviction'
    ]
    child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'inherit'] })
    for await (const line of child.stdout!) if (/Ready to accept connections/.test(String(line))) break
    child.stdout!.resume()
  }
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }
  await begin()
  return {
    url: `redis://127.0.0.1:${port}`,
    /** Kills the server, and starts it again on the same port with the data on the disk. */
    restart: async (): Promise<void> => {
      await end('SIGKILL')
      await setTimeout(200)
      await begin()
    },
    close: async (): Promise<void> => {
      await end('SIGTERM')
      await rm(dir, { recursive: true, force: true })
    }
  }
}
