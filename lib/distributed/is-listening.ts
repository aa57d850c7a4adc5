import { once } from 'node:events'
import { connect } from 'node:net'

/** The port of `host:port`. */
export const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(':') + 1))

const hostOf = (address: string): string => address.slice(0, address.lastIndexOf(':'))

/** Whether a program accepts a connection at `host:port` within 2 s. */
export const isListening = async (address: string): Promise<boolean> => {
  const socket = connect({ host: hostOf(address), port: portOf(address), family: 4 })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(2000) })
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
