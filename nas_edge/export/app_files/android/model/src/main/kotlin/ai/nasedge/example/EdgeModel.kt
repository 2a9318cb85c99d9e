package ai.nasedge.example

import android.content.Context
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/**
 * The model of this bundle. Not for use from several threads at once; close it after use.
 *
 *     EdgeModel(context).use { model ->
 *         val outputs = model.run(values)
 *     }
 *
 * `Input.kt` runs it on what the app has, and preprocesses that.
 */
class EdgeModel(context: Context, file: String = ModelFacts.FILE, threads: Int = 4) : Closeable {
    private val interpreter = Interpreter(map(context, file), Interpreter.Options().setNumThreads(threads))
    private val source = interpreter.getInputTensor(0)
    private val result = interpreter.getOutputTensor(0)

    /** What the model says of preprocessed values: real values, the batch left out. */
    fun run(values: FloatArray): FloatArray {
        val input = buffer(source)
        for (value in values) put(input, value)
        input.rewind()
        val output = buffer(result)
        interpreter.run(input, output)
        output.rewind()
        return FloatArray(result.numElements()) { take(output) }
    }

    override fun close() = interpreter.close()

    private fun put(input: ByteBuffer, value: Float) {
        val scale = source.quantizationParams()
        val stored = round(value / scale.scale.toDouble()).toInt() + scale.zeroPoint
        when (source.dataType()) {
            DataType.FLOAT32 -> input.putFloat(value)
            DataType.INT8 -> input.put(max(-128, min(127, stored)).toByte())
            DataType.INT16 -> input.putShort(max(-32768, min(32767, stored)).toShort())
            else -> throw IllegalStateException("unsupported type of input: " + source.dataType())
        }
    }

    private fun take(output: ByteBuffer): Float {
        val scale = result.quantizationParams()
        return when (result.dataType()) {
            DataType.FLOAT32 -> output.getFloat()
            DataType.INT8 -> scale.scale * (output.get() - scale.zeroPoint)
            DataType.INT16 -> scale.scale * (output.getShort() - scale.zeroPoint)
            else -> throw IllegalStateException("unsupported type of output: " + result.dataType())
        }
    }

    private fun buffer(tensor: Tensor) = ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder())

    private fun map(context: Context, file: String): ByteBuffer =
        context.assets.openFd(file).use { asset ->
            FileInputStream(asset.fileDescriptor).channel.use {
                it.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
            }
        }
}
